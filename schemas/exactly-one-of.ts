/** A field of an object of which a body gives exactly one, as the OpenAPI document shows it: one variant of a union. */
export interface Way {
  /** The name of the variant. */
  title: string;
  /** What the variant does. */
  description: string;
  /** The other fields that do not go with this one. */
  without?: readonly string[];
}

/**
 * Describes an object as a union with one variant for each of some fields, for the OpenAPI document. The object itself still validates
 * the requests, since a union of zod names no field in its errors.
 * @param ways the fields of which exactly one is given, with the variant that each stands for
 * @returns metadata for the schema of the object
 */
export function exactlyOneOf(ways: Record<string, Way>): { ways: Record<string, Way> } {
  return { ways };
}
