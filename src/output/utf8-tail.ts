import { isUtf8 } from 'node:buffer';

/** The most bytes of a character after its first one. */
export const LONGEST_REST = 3;

/** Keeps a byte order mark, which is part of what a program wrote. */
const options = { fatal: true, ignoreBOM: true };

export interface Utf8Tail {
  text: string;
  /** The index of the first byte of the text. */
  from: number;
}

/**
 * Decodes the last bytes of a stream.
 * @param bytes with up to {@link LONGEST_REST} bytes before those that are wanted
 * @param wanted the index of the first byte that is wanted
 * @param isCut whether the stream has bytes before `bytes` that are not kept any more
 * @param isOpen whether the stream goes on, so that its last character may be incomplete
 * @returns `null` if the bytes are not UTF-8
 */
export function decodeTail(bytes: Buffer, wanted: number, isCut: boolean, isOpen: boolean): Utf8Tail | null {
  const from = beginningOf(bytes, wanted, isCut, isOpen);
  try {
    return { text: new TextDecoder('utf-8', options).decode(bytes.subarray(from), { stream: isOpen }), from };
  } catch {
    return null;
  }
}

/** Returns the index of the first character that is not cut at the front: `wanted` itself if none is. */
function beginningOf(bytes: Buffer, wanted: number, isCut: boolean, isOpen: boolean): number {
  let next = wanted;
  while (next < bytes.length && next - wanted < LONGEST_REST && isContinuation(bytes[next]!)) next += 1;
  if (next === wanted) return wanted;
  let first = wanted - 1;
  while (first >= 0 && wanted - first < LONGEST_REST && isContinuation(bytes[first]!)) first -= 1;
  // Its first byte is not kept any more.
  if (first < 0) return isCut && next <= LONGEST_REST ? next : wanted;
  if (isUtf8(bytes.subarray(first, next))) return next;
  // An incomplete character at the end that the wanted bytes begin within: it is left out, to be read later from its first byte on.
  return isOpen && next === bytes.length && isIncomplete(bytes.subarray(first)) ? first : wanted;
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

function isIncomplete(bytes: Buffer): boolean {
  try {
    return new TextDecoder('utf-8', options).decode(bytes, { stream: true }) === '';
  } catch {
    return false;
  }
}
