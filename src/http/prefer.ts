/** The supported preferences of a client (RFC 7240). Unknown ones are ignored, as the RFC requires. */
export interface Preferences {
  respondAsync: boolean;
  /** `wait=SECONDS`, in milliseconds. */
  waitMs: number | undefined;
}

/** Parses the header `Prefer`. If a preference is given twice, the first one counts (RFC 7240 2). */
export function preferencesOf(header: string | string[] | undefined): Preferences {
  const preferences: Preferences = { respondAsync: false, waitMs: undefined };
  if (header === undefined) return preferences;
  for (const part of [header].flat().join(',').split(',')) {
    const preference = part.split(';', 1)[0]!.trim().toLowerCase();
    if (preference === 'respond-async') preferences.respondAsync = true;
    const wait = /^wait\s*=\s*"?(\d{1,7})"?$/.exec(preference);
    // Clamped to the longest duration of the contract, about 24 days.
    if (wait !== null) preferences.waitMs ??= Math.min(Number(wait[1]), 2147483) * 1000;
  }
  return preferences;
}
