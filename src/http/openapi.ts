import { STATUS_CODES } from 'node:http';
import { z } from 'zod';
import { ProblemDocument } from '../../schemas/common.ts';
import { type ResponseHeader, requestHeaders, responseHeaders } from '../../schemas/headers.ts';
import { type Contents, type Operation, tags } from '../../schemas/operations/operation.ts';
import { operations } from '../../schemas/operations.ts';
import type { ProblemErrno } from '../../schemas/vocabulary.ts';
import { type JsonSchema, toJsonSchemas } from './json-schema.ts';
import { problemExample } from './problem-examples.ts';

export interface Media {
  schema: JsonSchema;
  examples?: Record<string, object>;
}

export interface ResponseObject {
  description: string;
  headers?: Record<string, object>;
  content?: Record<string, Media>;
}

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  description: string;
  required?: boolean;
  schema: JsonSchema;
}

export interface OperationObject {
  operationId: string;
  tags: string[];
  parameters?: (Parameter | { $ref: string })[];
  requestBody?: { required: boolean; content: Record<string, Media> };
  responses: Record<string, ResponseObject | { $ref: string }>;
  [more: string]: unknown;
}

/** An OpenAPI 3.1 document. */
export interface OpenApiDocument {
  openapi: string;
  paths: Record<string, Record<string, OperationObject>>;
  components: {
    schemas: Record<string, JsonSchema>;
    responses: Record<string, ResponseObject>;
    [more: string]: object;
  };
  [more: string]: unknown;
}

const JSON_TYPE = 'application/json';
const BYTES_TYPE = 'application/octet-stream';

const info = {
  title: 'waitd',
  summary: 'waitid over HTTP and WebSocket.',
  description:
    'Starts and opens processes, waits for them as waitid(2) does, and tells how they ended. Every answer has an `X-Request-Id`, and every error is a problem document (RFC 9457).',
  contact: { name: 'The maintainers of waitd' },
  license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
};

const servers = [
  { url: '/', description: 'The daemon that serves this document.' },
  { url: 'http://127.0.0.1:7411', description: 'A daemon of this machine with its default TCP address.' },
];

const securitySchemes = {
  bearer: { type: 'http', scheme: 'bearer', description: 'A token, on every listener.' },
  clientCertificate: { type: 'mutualTLS', description: 'A client certificate, on a TLS listener.' },
};

/** The empty requirement is for Unix sockets, where the uid of the peer authenticates the client. */
const security = [{}, { bearer: [] }, { clientCertificate: [] }];

/** The response headers of problems. */
const problemHeaders: Record<string, readonly ResponseHeader[]> = {
  401: ['WWW-Authenticate'],
  '409 EAGAIN': ['Retry-After', 'Link'],
  415: ['Accept-Encoding'],
  416: ['Content-Range'],
  426: ['Upgrade'],
  429: ['Retry-After'],
  503: ['Retry-After'],
};

/**
 * Describes every operation of the API as an OpenAPI 3.1 document.
 * @param version the version of the daemon
 * @param closed whether the schemas of answers refuse unknown fields, so that a test detects fields without a description
 */
export function openApiDocument(version: string, closed = false): OpenApiDocument {
  const read: Record<string, z.ZodType> = {};
  const written: Record<string, z.ZodType> = { problem: ProblemDocument };
  for (const operation of operations) {
    const { operationId, params, querystring, body, bytes, response, webSocket } = operation;
    const given = { params, querystring, body, bytes, clientFrame: webSocket?.clientFrame };
    for (const [part, schema] of Object.entries(given))
      if (schema !== undefined) read[`${operationId} ${part}`] = schema;
    for (const [status, answer] of Object.entries(response))
      for (const [type, schema] of contentsOf(answer)) written[`${operationId} ${status} ${type}`] = schema;
    if (webSocket !== undefined) written[`${operationId} serverFrame`] = webSocket.serverFrame;
  }
  const requests = toJsonSchemas(read, 'input');
  const answers = toJsonSchemas(written, 'output', closed);
  const both = Object.keys(requests.components).filter((name) => name in answers.components);
  if (both.length > 0) throw new Error(`a schema cannot be strict in requests and open in answers: ${both}`);
  const writer = new Writer({ ...requests.schemas, ...answers.schemas });
  const paths: OpenApiDocument['paths'] = {};
  for (const operation of operations) {
    paths[operation.path] ??= {};
    paths[operation.path]![operation.method.toLowerCase()] = writer.operation(operation);
  }
  return {
    openapi: '3.1.0',
    info: { ...info, version },
    servers,
    security,
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: { ...requests.components, ...answers.components },
      responses: writer.responses,
      parameters: writer.parameters,
      headers: writer.headers,
      securitySchemes,
    },
  };
}

function contentsOf(answer: z.ZodType | Contents): [type: string, schema: z.ZodType][] {
  if ('content' in answer) return Object.entries(answer.content).map(([type, { schema }]) => [type, schema]);
  return answer instanceof z.ZodNull ? [] : [[JSON_TYPE, answer]];
}

/** Writes operations and their shared components. */
class Writer {
  readonly responses: Record<string, ResponseObject> = {};
  readonly parameters: Record<string, object> = {};
  readonly headers: Record<string, object> = {};
  readonly #schemas: Readonly<Record<string, JsonSchema>>;

  constructor(schemas: Readonly<Record<string, JsonSchema>>) {
    this.#schemas = schemas;
  }

  operation(operation: Operation): OperationObject {
    const { operationId, tags, summary, description, open, body, bytes, response, problems, webSocket } = operation;
    const parameters = this.#parametersOf(operation);
    const responses: OperationObject['responses'] = {};
    if (webSocket !== undefined) responses[101] = this.#upgrade(operation, webSocket.subprotocol);
    for (const [status, answer] of Object.entries(response))
      responses[status] = this.#answer(operation, status, answer);
    for (const [status, errnos] of Object.entries(problems))
      responses[status] ??= this.#problem(Number(status), errnos);
    return {
      operationId,
      tags,
      summary,
      description,
      ...(open === true && { security: [] }),
      ...(parameters.length > 0 && { parameters }),
      ...(body !== undefined && {
        requestBody: {
          required: !body.safeParse(undefined).success,
          content: { [JSON_TYPE]: { schema: this.#schemas[`${operationId} body`]! } },
        },
      }),
      ...(bytes !== undefined && {
        requestBody: { required: false, content: { [BYTES_TYPE]: { schema: this.#schemas[`${operationId} bytes`]! } } },
      }),
      responses,
    };
  }

  #parametersOf({ operationId, requestHeaders: names = [] }: Operation): OperationObject['parameters'] & object {
    const fieldsOf = (part: string, place: 'path' | 'query'): Parameter[] => {
      const { properties = {}, required = [] } = this.#schemas[`${operationId} ${part}`] ?? {};
      return Object.entries(properties).map(([name, { description = '', ...schema }]) => ({
        name,
        in: place,
        description,
        required: required.includes(name),
        schema,
      }));
    };
    const headers = names.map((name) => {
      const { description, schema, example } = requestHeaders[name];
      this.parameters[name] ??= { name, in: 'header', description, schema: bare(schema), example };
      return { $ref: `#/components/parameters/${name}` };
    });
    return [...fieldsOf('params', 'path'), ...fieldsOf('querystring', 'query'), ...headers];
  }

  #headers(names: readonly ResponseHeader[]): Record<string, object> {
    const refs = [...names, 'X-Request-Id' as const].map((name) => {
      const { description, schema, example } = responseHeaders[name];
      this.headers[name] ??= { description, schema: bare(schema), example };
      return [name, { $ref: `#/components/headers/${name}` }];
    });
    return Object.fromEntries(refs);
  }

  #answer({ operationId, responseHeaders: names }: Operation, status: string, answer: z.ZodType | Contents) {
    const contents = contentsOf(answer).map(([type]): [string, Media] => [
      type,
      { schema: this.#schemas[`${operationId} ${status} ${type}`]! },
    ]);
    return {
      description: (answer.description ?? STATUS_CODES[status])!,
      headers: this.#headers(names?.[Number(status)] ?? []),
      ...(contents.length > 0 && { content: Object.fromEntries(contents) }),
    };
  }

  /** Describes the frames of a WebSocket, for which OpenAPI has no other place. */
  #upgrade({ operationId }: Operation, subprotocol: string): ResponseObject {
    const oneOf = ['clientFrame', 'serverFrame'].map((frame) => this.#schemas[`${operationId} ${frame}`]!);
    return {
      description: `The connection becomes a WebSocket with the subprotocol \`${subprotocol}\`. The content is that of each frame.`,
      headers: this.#headers([]),
      content: { [JSON_TYPE]: { schema: { oneOf } } },
    };
  }

  /** Returns a component that all operations with the same status and errnos share. */
  #problem(status: number, errnos: readonly ProblemErrno[]): { $ref: string } {
    const name = [STATUS_CODES[status]!.replaceAll(/[^A-Za-z]/g, ''), ...errnos].join('_');
    const names = errnos.flatMap((errno) => problemHeaders[`${status} ${errno}`] ?? []);
    this.responses[name] ??= {
      description: `${STATUS_CODES[status]}: ${errnos.join(', ')}.`,
      headers: this.#headers([...(problemHeaders[status] ?? []), ...names]),
      content: {
        'application/problem+json': {
          schema: this.#schemas.problem!,
          examples: Object.fromEntries(
            errnos.map((errno) => {
              const value = problemExample(status, errno);
              return [errno, { summary: value.title, value }];
            }),
          ),
        },
      },
    };
    return { $ref: `#/components/responses/${name}` };
  }
}

const bare = (schema: z.ZodType): JsonSchema => toJsonSchemas({ schema }, 'input').schemas.schema!;
