import { parse } from 'node:querystring';
import { z } from 'zod';
import { MOST_ERRORS } from '../../schemas/bounded.ts';
import { operations } from '../../schemas/operations.ts';
import { Problem } from '../errors/problem.ts';
import type { App } from './app-type.ts';

/** The parameters that may be given several times. Each becomes an array. */
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
 * Parses a query for the schemas: whole numbers become numbers, and repeatable parameters become arrays. All others stay text. A
 * parameter that is given twice becomes an array, which its schema refuses.
 */
export function parseQuery(text: string): Record<string, unknown> {
  // Without a prototype, so that `__proto__` is a parameter like any other.
  const query: Record<string, unknown> = Object.create(null);
  if (text === '') return query;
  // No limit on the number, because the URL is bounded. By default querystring ignores all after the thousandth.
  for (const [name, value] of Object.entries(parse(text, '&', '=', { maxKeys: 0 }))) {
    if (repeatable.has(name)) query[name] = [value].flat();
    else query[name] = typeof value === 'string' && /^-?\d{1,15}$/.test(value) ? Number(value) : value;
  }
  return query;
}

/** Refuses every parameter on a route without a query schema. */
export function refuseQueries(app: App): void {
  app.addHook('preValidation', (request, _reply, done) => {
    const { schema, url } = request.routeOptions;
    const names = Object.keys(request.query as object);
    if (names.length === 0 || schema?.querystring !== undefined || isPage(url)) return done();
    const errors = names
      .slice(0, MOST_ERRORS)
      .map((name) => ({ path: `/${name.slice(0, 200)}`, message: 'unknown parameter' }));
    done(new Problem('EINVAL', 'This request has no query parameters. Leave them out.', { errors }));
  });
}

/** Pages and their files accept any parameter, because browsers add some to bypass caches. */
const isPage = (url = ''): boolean => /^\/docs(\/|$)/.test(url);
