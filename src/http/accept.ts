/**
 * Selects the media type that a client prefers (RFC 9110 12.5.1).
 * @param accept the Accept header
 * @param offered the available types; the first is the default without a preference
 * @returns `undefined` if the client accepts none of them
 */
export function mediaType<T extends string>(accept: string | undefined, offered: readonly T[]): T | undefined {
  const ranges = (accept?.trim() || '*/*').split(',').map((part) => {
    const [range = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const quality = parameters.find((text) => text.startsWith('q='));
    return { range, quality: quality === undefined ? 1 : Number(quality.slice(2)) };
  });
  const rank = (type: string): number => {
    const specific = [type, `${type.split('/', 1)[0]}/*`, '*/*'];
    for (const range of specific) {
      const found = ranges.find((candidate) => candidate.range === range);
      if (found !== undefined) return found.quality || 0;
    }
    return 0;
  };
  return offered.filter((type) => rank(type) > 0).sort((a, b) => rank(b) - rank(a))[0];
}
