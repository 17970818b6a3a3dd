import { parse } from 'node:querystring';

/** Those that may be given several times; each is an array from here on. */
const repeatable = new Set(['handle', 'type', 'label']);

/**
 * A query as the schemas want it: whole numbers as numbers, repeatable parameters as arrays. What is neither stays text,
 * and a parameter that is given twice stays an array, for the schema to refuse.
 */
export function parseQuery(text: string): Record<string, unknown> {
  const query: Record<string, unknown> = {};
  if (text === '') return query;
  for (const [name, value] of Object.entries(parse(text))) {
    if (repeatable.has(name)) query[name] = [value].flat();
    else query[name] = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  }
  return query;
}
