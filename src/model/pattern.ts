/** Above this product of lengths, a linear search replaces the built-in one, which is quadratic in the worst case. */
const MOST_COMPARED = 2 ** 20;

/** A text in which `*` matches any text, even an empty one. All other characters match themselves. */
export class Pattern {
  readonly #parts: readonly string[];

  constructor(text: string) {
    this.#parts = text.split('*');
  }

  /** Matches in time linear in the text: each part is searched once, from the end of the previous one. */
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
  // The algorithm of Knuth, Morris and Pratt reads the text once. The prefix table says where to continue after a mismatch.
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
