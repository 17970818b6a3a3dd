/** What a client would rather have, RFC 7240. Preferences that are not known are ignored, as the RFC says. */
export interface Preferences {
  respondAsync: boolean;
  /** `wait=SECONDS`, in milliseconds. */
  waitMs: number | undefined;
}

/** Reads the header `Prefer`; of a preference given twice the first counts. */
export function preferencesOf(header: string | string[] | undefined): Preferences {
  const preferences: Preferences = { respondAsync: false, waitMs: undefined };
  if (header === undefined) return preferences;
  for (const part of [header].flat().join(',').split(',')) {
    const preference = part.split(';', 1)[0]!.trim().toLowerCase();
    if (preference === 'respond-async') preferences.respondAsync = true;
    const wait = /^wait\s*=\s*"?(\d{1,7})"?$/.exec(preference);
    // Seven digits of seconds are over what a duration may be; the longest one is 24 days, which serves as well.
    if (wait !== null) preferences.waitMs ??= Math.min(Number(wait[1]), 2147483) * 1000;
  }
  return preferences;
}
