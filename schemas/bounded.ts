import type { z } from 'zod';

/** How many errors an answer lists at most. */
export const MOST_ERRORS = 20;

/** Up to this size a list is left to zod, which makes an error for every entry that does not fit. */
const SHORT = 1000;

/**
 * Most arguments, and most variables, that a request may hold. The kernel never takes as many: execve(2) counts nine bytes for
 * the shortest argument and eleven for the shortest variable, and no more than 6 MiB together.
 */
export const MOST_ARGUMENTS = 700_000;
export const MOST_VARIABLES = 575_000;

/** One entry of a list with the schema that it must fit, and its place. */
type Entry = [value: unknown, schema: z.ZodType, path: PropertyKey];

/** Short text without a special character is left to zod: there may be hundreds of thousands, and nearly all schemas take it. */
const isPlain = (entry: unknown): boolean => typeof entry === 'string' && /^[A-Za-z0-9_]{0,40}$/.test(entry);

/** What is wrong with a list of more than its most entries. */
interface TooMany {
  most: number;
  message: string;
  /** `E2BIG` where the kernel would say the same. */
  errno?: 'E2BIG';
}

/**
 * Bounds the number of entries of an array or a record, and the work for one that does not fit: its entries are checked one
 * after another until there are more errors than an answer lists. No transform: that would cost the OpenAPI document its examples
 * and defaults.
 * @param schema the array or record itself, complete: zod loses this when it copies a schema for another check or for `meta`
 * @param entries the entries of a value that has the right type, lazily
 */
function bounded<S extends z.ZodType>(
  schema: S,
  { most, message, errno }: TooMany,
  sizeOf: (value: unknown) => number,
  entries: (value: never) => Iterable<Entry>,
): S {
  const internals = schema._zod;
  let { parse } = internals;
  const isAll = internals.run === parse;
  const checked: typeof parse = (payload, context) => {
    const { value, issues } = payload;
    const fail = (facts: { message: string; path?: PropertyKey[]; params?: object }): void => {
      issues.push({ code: 'custom', input: value, inst: schema, continue: false, ...facts });
    };
    const size = sizeOf(value);
    if (size > SHORT) {
      let left = size > most ? SHORT : Number.POSITIVE_INFINITY;
      for (const [entry, fits, place] of entries(value as never)) {
        if (left === 0 || issues.length > MOST_ERRORS) break;
        left -= 1;
        if (isPlain(entry)) continue;
        for (const issue of fits.safeParse(entry).error?.issues ?? [])
          fail({ message: issue.message, path: [place, ...issue.path] });
      }
    }
    if (size > most && issues.length === 0) fail({ message, ...(errno !== undefined && { params: { errno } }) });
    return issues.length === 0 ? parse(payload, context) : payload;
  };
  // Some schemas put their own function there with their first use.
  const replaced = {
    get: () => checked,
    set: (own: typeof parse) => {
      parse = own;
    },
  };
  Object.defineProperty(internals, 'parse', replaced);
  if (isAll) Object.defineProperty(internals, 'run', replaced);
  return schema;
}

/**
 * An array of at most so many elements.
 * @param element of every element
 */
export function boundedArray<S extends z.ZodType>(schema: S, element: (at: number) => z.ZodType, tooMany: TooMany) {
  const sizeOf = (value: unknown): number => (Array.isArray(value) ? value.length : 0);
  return bounded(schema, tooMany, sizeOf, function* (value: unknown[]): Iterable<Entry> {
    for (const [at, each] of value.entries()) yield [each, element(at), at];
  });
}

/**
 * A record of at most so many entries.
 * @param schema with the type of its keys and of its values
 */
export function boundedRecord<S extends z.ZodRecord<z.core.$ZodRecordKey & z.ZodType, z.ZodType>>(
  schema: S,
  tooMany: TooMany,
) {
  const { keyType, valueType } = schema;
  const isRecord = (given: unknown): boolean => typeof given === 'object' && given !== null && !Array.isArray(given);
  const sizeOf = (given: unknown): number => (isRecord(given) ? Object.keys(given as object).length : 0);
  return bounded(schema, tooMany, sizeOf, function* (given: Record<string, unknown>): Iterable<Entry> {
    for (const name of Object.keys(given)) {
      yield [name, keyType, name];
      yield [given[name], valueType, name];
    }
  });
}
