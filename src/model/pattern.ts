/** Above this product of lengths the built-in search, which is quadratic at its worst, gives way to one that is linear always. */
const MOST_COMPARED = 2 ** 20;

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
      const found = find(text, part, at);
      if (found === -1) return false;
      at = found + part.length;
    }
    return text.length - last.length >= at && text.endsWith(last);
  }
}

function find(text: string, part: string, from: number): number {
  if (part.length * (text.length - from) <= MOST_COMPARED) return text.indexOf(part, from);
  // Knuth, Morris and Pratt: how much of the part is its own prefix tells where to go on, and the text is read once.
  const prefix = new Uint16Array(part.length);
  for (let at = 1, length = 0; at < part.length; at += 1) {
    while (length > 0 && part.charCodeAt(at) !== part.charCodeAt(length)) length = prefix[length - 1]!;
    if (part.charCodeAt(at) === part.charCodeAt(length)) length += 1;
    prefix[at] = length;
  }
  for (let at = from, length = 0; at < text.length; at += 1) {
    while (length > 0 && text.charCodeAt(at) !== part.charCodeAt(length)) length = prefix[length - 1]!;
    if (text.charCodeAt(at) === part.charCodeAt(length)) length += 1;
    if (length === part.length) return at - length + 1;
  }
  return -1;
}
