/** A text in which `*` stands for anything, also for nothing; all else stands for itself. */
export class Pattern {
  readonly #parts: readonly string[];

  constructor(text: string) {
    this.#parts = text.split('*');
  }

  /** In time that grows with the text alone: each part is looked for once, from where the one before ended. */
  fits(text: string): boolean {
    const [first, ...others] = this.#parts;
    const last = others.pop();
    if (last === undefined) return text === first;
    if (!text.startsWith(first!)) return false;
    let at = first!.length;
    for (const part of others) {
      const found = text.indexOf(part, at);
      if (found === -1) return false;
      at = found + part.length;
    }
    return text.length - last.length >= at && text.endsWith(last);
  }
}
