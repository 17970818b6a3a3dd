import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { Response } from '../../support/harness.ts';

/** As much of JSON Schema as the daemon's own document uses. */
export interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  oneOf?: Schema[];
  const?: unknown;
  enum?: unknown[];
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  propertyNames?: Schema;
  prefixItems?: Schema[];
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
}

interface Operation {
  parameters?: { name: string; in: 'path' | 'query'; schema: Schema }[];
  requestBody?: { content: { 'application/json': { schema: Schema } } };
  responses: Record<string, { content?: Record<string, { schema: Schema }> }>;
}

export interface Route {
  method: string;
  path: string;
  operation: Operation;
}

interface Text {
  components: { schemas: Record<string, Schema> };
  paths: Record<string, Record<string, Operation>>;
}

/** What the daemon says of itself in /openapi.json. */
export class ApiDocument {
  readonly routes: Route[];
  readonly #text: Text;
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(text: object) {
    this.#text = text as Text;
    this.#ajv.addSchema(text, 'api');
    this.routes = Object.entries(this.#text.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
    );
  }

  resolve(schema: Schema): Schema {
    if (schema.$ref === undefined) return schema;
    return this.resolve(this.#text.components.schemas[schema.$ref.split('/').at(-1)!]!);
  }

  /** @returns what is wrong with an answer, `null` where it is as the document says */
  judge(route: Route | null, { status, headers, text, body }: Response): string | null {
    const type = String(headers['content-type'] ?? '').split(';', 1)[0]!;
    if (status === 500 || body?.errno === 'EIO') return 'a fault of the daemon';
    if (route === null) return null;
    const { responses } = route.operation;
    const content = responses[status]?.content;
    if (responses[status] === undefined) return `${status} is not among ${Object.keys(responses)}`;
    if (content === undefined) return text === '' ? null : 'a body where there is none';
    const schema = content[type];
    if (schema === undefined) return `${type} is not among ${Object.keys(content)}`;
    if (body === null) return null;
    const place = [
      '#',
      'paths',
      route.path,
      route.method.toLowerCase(),
      'responses',
      status,
      'content',
      type,
      'schema',
    ];
    const pointer = place.map((part) => encodeURIComponent(String(part).replaceAll('~', '~0').replaceAll('/', '~1')));
    const reference = `api#${pointer
      .slice(1)
      .map((part) => `/${part}`)
      .join('')}`;
    const validate = this.#validators.get(reference) ?? this.#ajv.compile({ $ref: reference });
    this.#validators.set(reference, validate);
    return validate(body) ? null : this.#ajv.errorsText(validate.errors);
  }
}
