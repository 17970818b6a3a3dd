import { Problem } from '../errors/problem.ts';

/** The maximum depth. The schemas of the contract need only a few levels. */
const DEEPEST = 32;

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Refuses deeply nested JSON: to parse and garbage-collect a million nested arrays (2 MB) blocks the event loop for half a second.
 * Leaves other errors to the parser.
 * @param bytes the body, in UTF-8
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
      throw new Problem('EINVAL', `The body nests deeper than ${DEEPEST} levels. Send only the fields of its schema.`);
  }
}

/** @returns the position of the closing quote */
function endOfText(bytes: Buffer, from: number): number {
  for (let at = from; at < bytes.length; at += 1) {
    if (bytes[at] === BACKSLASH) at += 1;
    else if (bytes[at] === QUOTE) return at;
  }
  return bytes.length;
}
