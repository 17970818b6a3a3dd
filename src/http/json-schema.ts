import { z } from 'zod';
import type { Way } from '../../schemas/exactly-one-of.ts';

/** The subset of JSON Schema that the contract uses. */
export interface JsonSchema {
  $ref?: string;
  title?: string;
  description?: string;
  type?: string | string[];
  format?: string;
  const?: unknown;
  enum?: unknown[];
  default?: unknown;
  examples?: unknown[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  additionalProperties?: JsonSchema | boolean;
  propertyNames?: JsonSchema;
  items?: JsonSchema;
  minItems?: number;
  maxItems?: number;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  [keyword: string]: unknown;
}

export interface Converted {
  /** The converted schemas, by the names of the given ones. */
  schemas: Record<string, JsonSchema>;
  /** The schemas with an id, to which the others refer. */
  components: Record<string, JsonSchema>;
}

/**
 * Converts schemas to JSON Schema, with `$ref` to a component for every schema that has an id.
 * @param io `input` for schemas of requests, `output` for those of answers
 * @param closed whether objects in answers refuse unknown fields; clients must accept new fields, and tests must not
 */
export function toJsonSchemas(given: Record<string, z.ZodType>, io: 'input' | 'output', closed = false): Converted {
  const { properties = {}, $defs = {} } = z.toJSONSchema(z.object(given), { io }) as {
    properties?: Record<string, JsonSchema>;
    $defs?: Record<string, JsonSchema>;
  };
  const open = io === 'output' && !closed;
  const convert = (schemas: Record<string, JsonSchema>): Record<string, JsonSchema> =>
    Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, converted(schema, open)]));
  return { schemas: convert(properties), components: convert($defs) };
}

/** Formats of zod that JSON Schema does not define. */
const NOT_FORMATS = new Set<unknown>(['starts_with', 'base64']);

/** Keywords to remove: internal ones of `converted`, and those that only the TypeScript types need. */
const NOT_KEYWORDS = new Set(['ways', 'readOnly']);

/** Keywords whose values are not schemas. */
const VALUES = new Set(['const', 'enum', 'default', 'examples', 'required', 'type']);

/** Keywords whose values map names to schemas. */
const NAMED = new Set(['properties', 'patternProperties']);

function converted(schema: JsonSchema, open: boolean): JsonSchema {
  const result: JsonSchema = {};
  for (const [keyword, value] of Object.entries(schema)) {
    if (NOT_KEYWORDS.has(keyword) || (keyword === 'format' && NOT_FORMATS.has(value))) continue;
    if (keyword === '$ref') result.$ref = String(value).replace('#/$defs/', '#/components/schemas/');
    // The range of exact integers of a double is no useful bound for a client.
    else if (Math.abs(Number(value)) === Number.MAX_SAFE_INTEGER) continue;
    else if (open && keyword === 'additionalProperties' && value === false) continue;
    else if (VALUES.has(keyword) || typeof value !== 'object' || value === null) result[keyword] = value;
    else if (NAMED.has(keyword))
      result[keyword] = Object.fromEntries(
        Object.entries(value as Record<string, JsonSchema>).map(([name, each]) => [name, converted(each, open)]),
      );
    else if (Array.isArray(value)) result[keyword] = value.map((each) => converted(each, open));
    else result[keyword] = converted(value as JsonSchema, open);
  }
  return asVariants(asUnion(result), schema.ways as Record<string, Way> | undefined);
}

/** Simplifies alternatives that exclude each other: constants become an enum, objects become `oneOf`. */
function asUnion(schema: JsonSchema): JsonSchema {
  const { anyOf, ...rest } = schema;
  if (anyOf === undefined) return schema;
  const all = anyOf.flatMap((one) => (Object.keys(one).join() === 'anyOf' ? one.anyOf! : [one]));
  if (all.every((one) => one.const !== undefined))
    return {
      ...rest,
      type: typeof all[0]!.const === 'number' ? 'integer' : 'string',
      enum: all.map((one) => one.const),
    };
  const isNullable = all.some((one) => one.type === 'null');
  const hasObjects = all.some((one) => one.type === 'object' || one.$ref !== undefined);
  return { ...rest, [hasObjects && !isNullable ? 'oneOf' : 'anyOf']: all };
}

/** Splits an object with exactly one of several fields into a union with one variant per field. */
function asVariants(schema: JsonSchema, ways: Record<string, Way> | undefined): JsonSchema {
  if (ways === undefined) return schema;
  const { type, properties = {}, required = [], additionalProperties, ...rest } = schema;
  const oneOf = Object.entries(ways).map(([way, { title, description, without = [] }]) => {
    const others = Object.keys(ways).filter((other) => other !== way);
    const fields = Object.entries(properties).filter(([name]) => !others.includes(name) && !without.includes(name));
    return {
      title,
      description,
      type,
      properties: Object.fromEntries(fields),
      required: [way, ...required],
      additionalProperties,
    } as JsonSchema;
  });
  return { ...rest, oneOf };
}
