import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyRequest } from 'fastify';
import { MOST_ERRORS } from '../../schemas/bounded.ts';
import { Problem } from '../errors/problem.ts';
import type { App } from './app-type.ts';
import type { Check } from './checks.ts';
import { BODY_LIMIT } from './limits.ts';
import { requireShallow } from './nesting.ts';

/** Requests whose client waits for `100 Continue`, with the response that sends it. */
const expecting = new WeakMap<IncomingMessage, ServerResponse>();

/** Refuses a body by its headers, before a byte of it is read or asked for. */
export const refuseBody: Check = ({ raw: { headers } }) => {
  const { 'content-length': length, 'transfer-encoding': transfer, 'content-encoding': encoding } = headers;
  const isEmpty = transfer === undefined && (length === undefined || Number(length) === 0);
  const type = headers['content-type'];
  // It means nothing without a body, which one in chunks may turn out not to be, and Fastify would refuse one that is malformed.
  if (isEmpty || transfer !== undefined) delete headers['content-type'];
  if (isEmpty) return undefined;
  if (transfer !== undefined && transfer.trim().toLowerCase() !== 'chunked')
    throw new Problem(
      'EPROTO',
      'Only the transfer coding chunked is known: send the body with it, or with a Content-Length.',
    );
  if (Number(length) > BODY_LIMIT) throw tooLong();
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity')
    throw new Problem('EPROTO', 'Compressed bodies are not accepted: leave out Content-Encoding.', {
      status: 415,
      headers: { 'accept-encoding': 'identity' },
    });
  if (transfer === undefined) requireJson(type);
  return undefined;
};

/**
 * Reads bodies, of every method. An empty one is no body, whatever its type: clients name a default type without having a body.
 * A route without a schema for its body takes none.
 */
export function readBodies(app: App): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request, payload, done) => {
    expecting.get(request.raw)?.writeContinue();
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
  // Fastify would leave these unread, and a body that says what to do would be ignored.
  for (const method of ['GET', 'HEAD']) app.addHttpMethod(method, { hasBody: true, overrideExisting: true });
  app.addHook('preValidation', (request, _reply, done) => {
    if (request.body === undefined || request.routeOptions.schema?.body !== undefined) done();
    else done(refusalOfFields(request));
  });
  app.server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    expecting.set(request, response);
    app.server.emit('request', request, response);
  });
}

/** Gives the whole of a body, or a problem once it is over the limit; the rest then stays unread. */
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
    throw new Problem('EINVAL', 'The body is not valid UTF-8.');
  }
}

function requireJson(type: string | undefined): void {
  const [essence = '', ...parameters] = (type ?? '').split(';').map((part) => part.trim().toLowerCase());
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))?.slice('charset='.length);
  if (essence === 'application/json' && /^("?)(utf-?8|us-ascii)\1$/.test(charset ?? 'utf-8')) return;
  throw new Problem('EPROTO', 'Send the body as application/json, in UTF-8.', { status: 415 });
}

function tooLong(): Problem {
  return new Problem('E2BIG', `The body is over ${BODY_LIMIT} bytes, the limit.`);
}

/** Nothing in a body means anything to a route that takes none, so any field is an unknown one. */
function refusalOfFields({ body }: FastifyRequest): Problem | undefined {
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body);
  const fields = isObject ? Object.keys(body) : [];
  if (isObject && fields.length === 0) return undefined;
  const errors = isObject
    ? fields.slice(0, MOST_ERRORS).map((field) => ({ path: `/${field.slice(0, 200)}`, message: 'is not known here' }))
    : [{ path: '/', message: 'must be left out' }];
  return new Problem('EINVAL', 'This request takes no body: leave it out, and give parameters in the query.', {
    errors,
  });
}
