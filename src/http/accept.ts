/**
 * The media type that a client would rather have (RFC 9110 12.5.1).
 * @param offered the first one is what a client gets that has no wish
 * @returns `undefined` where it accepts none of them
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
