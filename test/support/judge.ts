import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { responseHeaders } from '../../schemas/headers.ts';
import type { JsonSchema } from '../../src/http/json-schema.ts';
import {
  type OpenApiDocument,
  type OperationObject,
  openApiDocument,
  type Parameter,
  type ResponseObject,
} from '../../src/http/openapi.ts';

export interface Route {
  method: string;
  path: string;
  operation: OperationObject;
}

/** The parts of an answer that the judge checks. */
interface Answer {
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  text: string;
  body: unknown;
}

/** Judges answers and frames by an OpenAPI document. Each schema is compiled when it is first needed. */
export class Judge {
  readonly routes: Route[];
  readonly #document: OpenApiDocument;
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(document: OpenApiDocument) {
    this.#document = document;
    this.#ajv.addSchema(document, 'api');
    this.routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
    );
  }

  /** Resolves a `$ref` to any component. */
  resolve<T extends object>(given: T | { $ref: string }): T {
    if (!('$ref' in given) || typeof given.$ref !== 'string') return given as T;
    const parts = given.$ref.split('/').slice(1);
    return this.resolve(
      parts.reduce((at, part) => (at as Record<string, object>)[part]!, this.#document as object) as T,
    );
  }

  parametersOf({ operation }: Route): Parameter[] {
    return (operation.parameters ?? []).map((parameter) => this.resolve<Parameter>(parameter));
  }

  bodyOf({ operation }: Route): JsonSchema | undefined {
    return operation.requestBody?.content['application/json']?.schema;
  }

  /** Finds the route of a request. HEAD counts as GET. */
  routeOf(method: string, target: string): Route | null {
    const given = target.split('?', 1)[0]!.split('/');
    const fits = (path: string): boolean => {
      const wanted = path.split('/');
      return (
        wanted.length === given.length &&
        wanted.every((part, at) => (part.startsWith('{') ? given[at] !== '' : part === given[at]))
      );
    };
    const name = method === 'HEAD' ? 'GET' : method;
    return this.routes.find((route) => route.method === name && fits(route.path)) ?? null;
  }

  /** Checks an answer. @returns the violation, or `null` if the answer matches the document */
  answer(route: Route, { status, headers, text, body }: Answer): string | null {
    const { operationId, responses } = route.operation;
    const name = `${operationId} ${status}`;
    if (responses[status] === undefined) return `${name} is not among ${Object.keys(responses)}`;
    const { content, headers: declared = {} } = this.resolve<ResponseObject>(responses[status]);
    const unknown = Object.keys(responseHeaders).filter((each) => !(each in declared) && each.toLowerCase() in headers);
    if (unknown.length > 0) return `${name} has the headers ${unknown}, which are not declared`;
    if (content === undefined) return text === '' ? null : `${name} has a body where none is declared`;
    const type = String(headers['content-type'] ?? '').split(';', 1)[0]!;
    const schema = content[type]?.schema;
    if (schema === undefined) return `${name} is of type ${type}, which is not among ${Object.keys(content)}`;
    return body === null ? null : this.#misfit(`${name} ${type}`, schema, body);
  }

  /**
   * Checks a frame from the daemon.
   * @param name of the schema
   * @returns the violation, or `null`
   */
  frame(frame: unknown, name: 'ServerFrame' | 'AttachServerFrame' = 'ServerFrame'): string | null {
    return this.#misfit(name, { $ref: `#/components/schemas/${name}` }, frame);
  }

  #misfit(name: string, schema: JsonSchema, value: unknown): string | null {
    let validate = this.#validators.get(name);
    if (validate === undefined) {
      validate = this.#ajv.compile(rebased(schema));
      this.#validators.set(name, validate);
    }
    return validate(value) ? null : `${name}: ${this.#ajv.errorsText(validate.errors)}`;
  }
}

/** Returns a schema of the document with its references made absolute. */
function rebased(schema: JsonSchema): object {
  return JSON.parse(JSON.stringify(schema).replaceAll('"$ref":"#/', '"$ref":"api#/'));
}

/** The contract, which allows no unknown field in an answer. */
export const contract = new Judge(openApiDocument('1.0.0', true));
