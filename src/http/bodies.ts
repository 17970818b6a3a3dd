import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { MOST_ERRORS } from '../../schemas/bounded.ts';
import { Problem } from '../errors/problem.ts';
import type { App } from './app-type.ts';
import type { Check } from './checks.ts';
import { BODY_LIMIT } from './limits.ts';
import { requireShallow } from './nesting.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the body is a stream of bytes, which the handler reads, and not JSON. */
    bytes?: boolean;
  }
}

/** Requests whose bodies are read by their handlers, at the speed at which those use them. */
const streamed = new WeakSet<IncomingMessage>();

/** Reports whether the body of a request may take as long as it likes. */
export function isStreamed(request: IncomingMessage): boolean {
  return streamed.has(request);
}

/** Requests whose client waits for `100 Continue`, with the response that sends it (RFC 9110 10.1.1). */
const expecting = new WeakMap<IncomingMessage, ServerResponse>();

/** Refuses a body by its headers, before any of it is read. */
export const refuseBody: Check = ({ raw: { headers } }, _reply, { bytes: isBytes = false }) => {
  const { 'content-length': length, 'transfer-encoding': transfer, 'content-encoding': encoding } = headers;
  const isEmpty = transfer === undefined && (length === undefined || Number(length) === 0);
  const type = headers['content-type'];
  // Without a body the type is irrelevant, but Fastify would refuse a malformed one. A chunked body may turn out to be empty.
  if (isEmpty || transfer !== undefined) delete headers['content-type'];
  if (isEmpty) return undefined;
  if (transfer !== undefined && transfer.trim().toLowerCase() !== 'chunked')
    throw new Problem(
      'EPROTO',
      'The transfer coding is not supported. Send the body with chunked or with a Content-Length.',
    );
  if (!isBytes && Number(length) > BODY_LIMIT) throw tooLong();
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity')
    throw new Problem('EPROTO', 'Compressed bodies are not supported. Send the body without Content-Encoding.', {
      status: 415,
      headers: { 'accept-encoding': 'identity' },
    });
  if (isBytes) requireBytes(type);
  else if (transfer === undefined) requireJson(type);
  return undefined;
};

/**
 * Reads the bodies of every method. An empty body counts as none, whatever its type, because some clients always send a type.
 * A route without a body schema refuses any other body.
 */
export function readBodies(app: App): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request, payload, done) => {
    expecting.get(request.raw)?.writeContinue();
    if (request.routeOptions.config.bytes === true) {
      readBytes(request, payload, done);
      return;
    }
    collect(payload, (error, bytes) => {
      if (error !== null) return done(error);
      if (bytes.length === 0) return done(null, undefined);
      try {
        requireJson(request.raw.headersDistinct['content-type']?.join());
        requireShallow(bytes);
        parse(request as never, decoded(bytes), done);
      } catch (problem) {
        done(problem as Error);
      }
    });
  });
  // Fastify would ignore the bodies of these methods instead of refusing them.
  for (const method of ['GET', 'HEAD']) app.addHttpMethod(method, { hasBody: true, overrideExisting: true });
  app.addHook('preValidation', (request, _reply, done) => {
    const { schema, config } = request.routeOptions;
    if (request.body === undefined || schema?.body !== undefined || config.bytes === true) done();
    else done(refusalOfFields(request));
  });
  app.server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    expecting.set(request, response);
    app.server.emit('request', request, response);
  });
}

/** Hands a body to the handler as a stream. To compare it with that of an earlier request of its key, it is collected first. */
function readBytes(
  { raw, headers }: FastifyRequest,
  payload: NodeJS.ReadableStream,
  done: (error: Error | null, body?: unknown) => void,
): void {
  if (headers['idempotency-key'] !== undefined) collect(payload, done);
  else {
    streamed.add(raw);
    done(null, payload);
  }
}

/** Returns the length of a body in bytes; `null` if it is sent in chunks. */
export function lengthOf({ headers }: IncomingMessage): number | null {
  return headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : null;
}

/** Leaves the rest of a body unread that an answer does not wait for: discards a short one, and closes the connection after a long one. */
export function leaveUnread(request: IncomingMessage, reply: FastifyReply): void {
  if (request.complete) return;
  if (isLongUnread(request)) reply.header('connection', 'close');
  else request.resume();
}

/** Reports whether the rest of a request may be too long to read it for the sake of the next request on the connection. */
export function isLongUnread({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false;
  if (headers['transfer-encoding'] !== undefined || headers.expect !== undefined) return true;
  return Number(headers['content-length']) > BODY_LIMIT;
}

/** Collects a body. Once it exceeds the limit, calls back with a problem and leaves the rest unread. */
function collect(payload: NodeJS.ReadableStream, done: (error: Error | null, bytes: Buffer) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  const onData = (chunk: Buffer): void => {
    length += chunk.length;
    if (length > BODY_LIMIT) end(tooLong());
    else chunks.push(chunk);
  };
  const onEnd = (): void => end(null);
  const end = (error: Error | null): void => {
    payload.off('data', onData).off('end', onEnd).off('error', end);
    done(error, error === null ? Buffer.concat(chunks) : Buffer.alloc(0));
  };
  payload.on('data', onData).on('end', onEnd).on('error', end);
}

function decoded(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Problem('EINVAL', 'The body is not valid UTF-8. Encode it as UTF-8.');
  }
}

function requireBytes(type: string | undefined): void {
  if (type === undefined || type.split(';')[0]!.trim().toLowerCase() === 'application/octet-stream') return;
  throw new Problem('EPROTO', 'The body is not application/octet-stream. Send the bytes as this type.', {
    status: 415,
  });
}

function requireJson(type: string | undefined): void {
  const [essence = '', ...parameters] = (type ?? '').split(';').map((part) => part.trim().toLowerCase());
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))?.slice('charset='.length);
  if (essence === 'application/json' && /^("?)(utf-?8|us-ascii)\1$/.test(charset ?? 'utf-8')) return;
  throw new Problem(
    'EPROTO',
    'The body is not application/json in UTF-8. Send it with Content-Type: application/json.',
    { status: 415 },
  );
}

function tooLong(): Problem {
  return new Problem('E2BIG', `The body exceeds the limit of ${BODY_LIMIT} bytes. Send a smaller one.`);
}

/** Builds the refusal of a body on a route that has none, where every field is unknown. An empty object is accepted. */
function refusalOfFields({ body }: FastifyRequest): Problem | undefined {
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body);
  const fields = isObject ? Object.keys(body) : [];
  if (isObject && fields.length === 0) return undefined;
  const errors = isObject
    ? fields.slice(0, MOST_ERRORS).map((field) => ({ path: `/${field.slice(0, 200)}`, message: 'unknown field' }))
    : [{ path: '/', message: 'must be left out' }];
  return new Problem('EINVAL', 'This request has no body. Leave the body out, and give parameters in the query.', {
    errors,
  });
}
