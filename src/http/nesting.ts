import { Problem } from '../errors/problem.ts';

/** No body of ours nests deeper than a few levels. */
const DEEPEST = 32;

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Refuses JSON that nests deep: to parse a million nested arrays of 2 MB, and to collect them as garbage, holds the event loop for half
 * a second. What is not JSON is left to the parser.
 * @throws {Problem} EINVAL
 */
export function requireShallow(bytes: Buffer): void {
  let depth = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (byte === QUOTE) at = endOfText(bytes, at + 1);
    else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) depth += 1;
    else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) depth -= 1;
    if (depth > DEEPEST)
      throw new Problem('EINVAL', `The body nests deeper than ${DEEPEST} levels: send only the fields of its schema.`);
  }
}

/** @returns where the closing quote is */
function endOfText(bytes: Buffer, from: number): number {
  for (let at = from; at < bytes.length; at += 1) {
    if (bytes[at] === BACKSLASH) at += 1;
    else if (bytes[at] === QUOTE) return at;
  }
  return bytes.length;
}
