/** A part of something, `to` exclusive. */
export interface ByteRange {
  from: number;
  to: number;
}

/**
 * What a Range header asks for (RFC 9110 14.1.2).
 * @param size of the whole, in bytes
 * @returns `null` where there is no header to heed: another unit, several ranges or none; `unsatisfiable` where nothing of it
 *   is there
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
