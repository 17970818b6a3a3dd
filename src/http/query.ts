import { parse } from 'node:querystring';
import { z } from 'zod';
import { MOST_ERRORS } from '../../schemas/bounded.ts';
import { operations } from '../../schemas/operations.ts';
import { Problem } from '../errors/problem.ts';
import type { App } from './app-type.ts';

/** The parameters that may be given several times. Each is an array from here on. */
const repeatable = new Set(
  operations.flatMap(({ querystring }) =>
    Object.entries(querystring?.shape ?? {}).flatMap(([name, schema]) => (isArray(schema) ? [name] : [])),
  ),
);

function isArray(schema: z.core.$ZodType): boolean {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return isArray(schema.unwrap());
  return schema instanceof z.ZodArray;
}

/**
 * A query as the schemas want it: whole numbers as numbers, repeatable parameters as arrays. What is neither stays text,
 * and a parameter that is given twice stays an array, for the schema to refuse.
 */
export function parseQuery(text: string): Record<string, unknown> {
  const query: Record<string, unknown> = {};
  if (text === '') return query;
  // As many as the URL holds, which is bounded: querystring would drop all after the thousandth.
  for (const [name, value] of Object.entries(parse(text, '&', '=', { maxKeys: 0 }))) {
    if (repeatable.has(name)) query[name] = [value].flat();
    else query[name] = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  }
  return query;
}

/** Refuses every parameter where a route has none. Those of the other routes are their schemas' to refuse. */
export function refuseQueries(app: App): void {
  app.addHook('preValidation', (request, _reply, done) => {
    const { schema, url } = request.routeOptions;
    const names = Object.keys(request.query as object);
    if (names.length === 0 || schema?.querystring !== undefined || isPage(url)) return done();
    const errors = names
      .slice(0, MOST_ERRORS)
      .map((name) => ({ path: `/${name.slice(0, 200)}`, message: 'is not known here' }));
    done(new Problem('EINVAL', 'This request takes no query parameters: leave them out.', { errors }));
  });
}

/** Browsers and their caches ask for pages and what belongs to them as they like. */
const isPage = (url = ''): boolean => /^\/docs(\/|$)/.test(url);
