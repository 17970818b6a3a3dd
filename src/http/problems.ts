import { randomUUID } from 'node:crypto';
import {
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { MOST_ERRORS } from '../../schemas/bounded.ts';
import type { ProblemErrno } from '../../schemas/vocabulary.ts';
import { Problem } from '../errors/problem.ts';
import { BODY_LIMIT, HEADERS_LIMIT } from './limits.ts';
import { linger } from './linger.ts';
import { requestId } from './request-id.ts';

/** What Fastify itself refuses, by its codes. */
const refused: Record<string, Problem> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: new Problem('EPROTO', 'Send the body as application/json.', { status: 415 }),
  FST_ERR_CTP_INVALID_JSON_BODY: new Problem('EINVAL', 'The body is not valid JSON.'),
  FST_ERR_BAD_URL: new Problem('EPROTO', 'The URL is not well-formed.', { status: 400 }),
  FST_ERR_MAX_PARAM_LENGTH: new Problem('EPROTO', 'A part of the URL is too long.', { status: 414 }),
};

/** What Node's HTTP parser refuses, before there is a request. */
const unparsed: Record<string, Problem> = {
  HPE_HEADER_OVERFLOW: new Problem('EPROTO', `The headers are over ${HEADERS_LIMIT} bytes.`, { status: 431 }),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem('EPROTO', 'The request took too long to arrive.', { status: 408 }),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Problem('E2BIG', 'The chunk extensions are over the limit.'),
};

/**
 * Answers with a problem that a route throws without the framework's way of errors, which costs a call that is refused more
 * than all else together, and leaves what the collector of garbage takes long to find.
 */
export function answerProblems(app: FastifyInstance): void {
  app.addHook('onRoute', (route) => {
    const { handler } = route;
    route.handler = function (request, reply) {
      const refuse = (error: unknown): void => {
        if (!(error instanceof Problem)) throw error;
        sendProblem(reply, error);
      };
      try {
        const answer: unknown = handler.call(this, request, reply);
        return answer instanceof Promise ? answer.catch(refuse) : answer;
      } catch (error) {
        return refuse(error);
      }
    };
  });
}

/** The one way from an error to what the client is told. A fault of ours is logged whole and told without detail. */
export function errorHandler(logger: FastifyBaseLogger) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void =>
    sendProblem(reply, problemOf(error, request, logger));
}

/** Answers past the framework's own way to send, which looks for what a problem never is: a stream, a type to be guessed. */
export function sendProblem(reply: FastifyReply, problem: Problem): void {
  const { request, raw } = reply;
  request.errno = problem.errno;
  request.server.onRefusal(request, reply, problem.errno);
  const body = JSON.stringify(problem.toDocument(request.id));
  const headers = reply.getHeaders() as OutgoingHttpHeaders;
  // What the framework itself refuses does not pass the hook that sets them.
  if (headers['x-request-id'] === undefined) Object.assign(headers, usualHeaders(request.id));
  if (isLongUnread(request.raw)) headers.connection = 'close';
  Object.assign(headers, problem.headers);
  headers['content-type'] = 'application/problem+json';
  headers['content-length'] = Buffer.byteLength(body);
  reply.hijack();
  raw.writeHead(problem.status, headers);
  raw.end(body);
}

/** Whether more of a request is still to come than is read for the sake of the next one on its connection. */
function isLongUnread({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false;
  if (headers['transfer-encoding'] !== undefined || headers.expect !== undefined) return true;
  return Number(headers['content-length']) > BODY_LIMIT;
}

/** What every answer bears. Nobody is to guess at its type. */
export function usualHeaders(requestId: string): Record<string, string> {
  return { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'x-request-id': requestId };
}

function problemOf(error: FastifyError, { id: requestId }: FastifyRequest, logger: FastifyBaseLogger): Problem {
  if (error instanceof Problem) return error;
  if (hasZodFastifySchemaValidationErrors(error)) return misfit(error);
  // The caller went away in the middle of its body: nobody reads this.
  if (error.code === 'ECONNRESET') return new Problem('EPROTO', 'The body ended early.', { status: 400 });
  const known = refused[error.code];
  if (known !== undefined) return known;
  logger.error({ err: error, requestId }, 'a fault of ours');
  return new Problem('EIO', 'The daemon has a fault: its log tells more under this request’s id.');
}

/** What a schema says of a request, in as many places as an answer lists. */
function misfit({ validation, validationContext }: FastifyError): Problem {
  const where = validationContext ?? 'request';
  const found: { path: string; message: string }[] = [];
  for (const { instancePath, message = 'does not fit', params } of validation ?? []) {
    const { keys, params: more } = params as { keys?: string[]; params?: { errno?: ProblemErrno } };
    if (more?.errno !== undefined) return new Problem(more.errno, `The ${where} ${message}: ${instancePath}.`);
    const base = instancePath === '/' ? '' : instancePath;
    const places = keys?.slice(0, MOST_ERRORS + 1).map((key) => `${base}/${key}`);
    for (const path of places ?? [instancePath])
      found.push({ path: path.slice(0, LONGEST_PLACE), message: places === undefined ? message : 'is not known here' });
    if (found.length > MOST_ERRORS) break;
  }
  const errors = found.length > MOST_ERRORS ? [...found.slice(0, MOST_ERRORS - 1), AND_MORE] : found;
  const more = errors.length < found.length ? ', and more' : '';
  return new Problem('EINVAL', `The ${where} does not fit at ${errors[0]!.path}: ${errors[0]!.message}${more}.`, {
    errors,
  });
}

/** Stands for all errors that are not listed. */
const AND_MORE = { path: '', message: 'and more' };

/** How much of a path is repeated: the names in it are the client's. */
const LONGEST_PLACE = 200;

/** Answers what never became a request, and closes the connection. */
export function refuseUnparsed(error: Error & { code?: string }, socket: Duplex): void {
  // The other end has gone, or has been answered already.
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const problem =
    unparsed[error.code ?? ''] ?? new Problem('EPROTO', 'This is no well-formed HTTP request.', { status: 400 });
  endWith(socket, problem);
}

/** The answer that a connection is to carry next, for which Node has no public name. */
export function answerDueOn(socket: Duplex): ServerResponse | null {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? null;
}

/** What Node's HTTP server answers by itself, and without a problem, where nobody listens for it. */
export function refuseOddities(server: Server): void {
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    endWith(socket, new Problem('EPROTO', 'This is no proxy.', { status: 405 }), requestId(request));
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const problem = new Problem('EPROTO', 'Only Expect: 100-continue is met.', { status: 417 });
    const { headers, body } = finalResponse(problem, requestId(request));
    response.writeHead(417, headers).end(body);
  });
}

/** Builds a problem response after which the connection closes. */
function finalResponse(problem: Problem, id: string): { headers: Record<string, string>; body: string } {
  const body = JSON.stringify(problem.toDocument(id));
  const headers = {
    'content-type': 'application/problem+json',
    'content-length': String(Buffer.byteLength(body)),
    ...usualHeaders(id),
    date: new Date().toUTCString(),
    connection: 'close',
    ...problem.headers,
  };
  return { headers, body };
}

/** Writes a problem straight to a socket. */
function endWith(socket: Duplex, problem: Problem, id: string = randomUUID()): void {
  // Answers come in the order of their requests (RFC 9112 9.3.2): what comes now would be taken for that of an earlier one,
  // or for a part of it. Only of a request that is not whole yet is it the answer.
  const due = answerDueOn(socket);
  if (due !== null && (due.headersSent || due.req.complete)) {
    socket.destroy();
    return;
  }
  const { headers, body } = finalResponse(problem, id);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const head = [`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`, ...lines, '', ''].join('\r\n');
  linger(socket as Socket, head + body);
}
