/** A range of bytes; `to` is exclusive. */
export interface ByteRange {
  from: number;
  to: number;
}

/**
 * Parses a Range header (RFC 9110 14.1.2).
 * @param size the size of the whole in bytes
 * @returns `null` if the header is missing or must be ignored, as with another unit or several ranges; `unsatisfiable` if the range
 *   contains no existing byte
 */
export function rangeOf(header: string | undefined, size: number): ByteRange | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/i.exec(header?.trim() ?? '');
  if (match === null || match[0] === 'bytes=-') return null;
  const [, first = '', last = ''] = match;
  if (first === '') return Number(last) === 0 ? 'unsatisfiable' : { from: Math.max(0, size - Number(last)), to: size };
  if (last !== '' && Number(last) < Number(first)) return null;
  if (Number(first) >= size) return 'unsatisfiable';
  return { from: Number(first), to: last === '' ? size : Math.min(size, Number(last) + 1) };
}
