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
import { isLongUnread, isStreamed } from './bodies.ts';
import { HEADERS_LIMIT } from './limits.ts';
import { linger } from './linger.ts';
import { requestId } from './request-id.ts';

/** The problems for requests that Fastify refuses, by error code. */
const refused: Record<string, Problem> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: new Problem(
    'EPROTO',
    'The body is not application/json. Send it with Content-Type: application/json.',
    { status: 415 },
  ),
  FST_ERR_CTP_INVALID_JSON_BODY: new Problem(
    'EINVAL',
    'The body is not valid JSON, or has a member named __proto__. Send a JSON object.',
  ),
  FST_ERR_BAD_URL: new Problem(
    'EPROTO',
    'The URL is not well-formed. Use ASCII, and escape other characters as UTF-8.',
    { status: 400 },
  ),
  FST_ERR_MAX_PARAM_LENGTH: new Problem('EPROTO', 'A segment of the URL is too long. Use at most 200 characters.', {
    status: 414,
  }),
};

/** The problems for input that Node.js's HTTP parser refuses, by error code. */
const unparsed: Record<string, Problem> = {
  HPE_HEADER_OVERFLOW: new Problem('EPROTO', `The headers exceed ${HEADERS_LIMIT} bytes. Send fewer or shorter ones.`, {
    status: 431,
  }),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem('EPROTO', 'The request took too long to arrive. Send it again.', {
    status: 408,
  }),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Problem('E2BIG', 'The chunk extensions exceed the limit. Send none.'),
};

/**
 * Answers the problems that routes throw, without the error handling of Fastify. That costs more than the rest of a refused call, and
 * creates objects that the garbage collector is slow to find.
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

/** Makes the error handler. Answers an internal error without its details, which it writes to the log. */
export function errorHandler(logger: FastifyBaseLogger) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void =>
    sendProblem(reply, problemOf(error, request, logger));
}

/** Sends a problem directly, without Fastify's send, which has features that a problem does not need. */
export function sendProblem(reply: FastifyReply, problem: Problem): void {
  const { request, raw } = reply;
  request.errno = problem.errno;
  request.server.onRefusal(request, reply, problem.errno);
  const body = JSON.stringify(problem.toDocument(request.id));
  const headers = reply.getHeaders() as OutgoingHttpHeaders;
  // The hook that sets the usual headers does not run for a request that Fastify itself refuses.
  if (headers['x-request-id'] === undefined) Object.assign(headers, usualHeaders(request.id));
  if (isLongUnread(request.raw)) headers.connection = 'close';
  Object.assign(headers, problem.headers);
  headers['content-type'] = 'application/problem+json';
  headers['content-length'] = Buffer.byteLength(body);
  reply.hijack();
  raw.writeHead(problem.status, headers);
  raw.end(body);
}

/** Returns the headers of every answer. */
export function usualHeaders(requestId: string): Record<string, string> {
  return { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'x-request-id': requestId };
}

function problemOf(error: FastifyError, { id: requestId }: FastifyRequest, logger: FastifyBaseLogger): Problem {
  if (error instanceof Problem) return error;
  if (hasZodFastifySchemaValidationErrors(error)) return misfit(error);
  // The caller disconnected within its body, so nobody receives this answer.
  if (error.code === 'ECONNRESET')
    return new Problem('EPROTO', 'The body ended early. Send all of it.', { status: 400 });
  const known = refused[error.code];
  if (known !== undefined) return known;
  logger.error({ err: error, requestId }, 'internal error');
  return new Problem('EIO', 'The daemon has an internal error. See its log under this request’s id.');
}

/** Builds the problem of a request that does not match its schema, with a limited number of errors. */
function misfit({ validation, validationContext }: FastifyError): Problem {
  const where = validationContext ?? 'request';
  const found: { path: string; message: string }[] = [];
  for (const { instancePath, message = 'is not valid', params } of validation ?? []) {
    const { keys, params: more } = params as { keys?: string[]; params?: { errno?: ProblemErrno } };
    if (more?.errno !== undefined) return new Problem(more.errno, `The ${where} ${message}: ${instancePath}.`);
    const base = instancePath === '/' ? '' : instancePath;
    const places = keys?.slice(0, MOST_ERRORS + 1).map((key) => `${base}/${key}`);
    for (const path of places ?? [instancePath])
      found.push({ path: path.slice(0, LONGEST_PLACE), message: places === undefined ? message : 'unknown name' });
    if (found.length > MOST_ERRORS) break;
  }
  const errors = found.length > MOST_ERRORS ? [...found.slice(0, MOST_ERRORS - 1), AND_MORE] : found;
  const more = errors.length < found.length ? ', and more' : '';
  return new Problem('EINVAL', `The ${where} is not valid at ${errors[0]!.path}: ${errors[0]!.message}${more}.`, {
    errors,
  });
}

/** The last entry of a list that leaves out further errors. */
const AND_MORE = { path: '', message: 'and more' };

/** The maximum length of a path in an answer, because its names come from the client. */
const LONGEST_PLACE = 200;

/** Answers input that the HTTP parser refused, and closes the connection. */
export function refuseUnparsed(error: Error & { code?: string }, socket: Duplex): void {
  // The client has disconnected, or was answered already.
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const due = answerDueOn(socket);
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && due !== null && isStreamed(due.req)) return;
  const problem =
    unparsed[error.code ?? ''] ??
    new Problem('EPROTO', 'The request is not well-formed HTTP. Send it as RFC 9112 defines.', { status: 400 });
  endWith(socket, problem);
}

/** Returns the answer that is due next on a connection, which Node.js has no public name for. */
export function answerDueOn(socket: Duplex): ServerResponse | null {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? null;
}

/** Answers with a problem what Node.js's HTTP server would otherwise answer itself: CONNECT and unknown expectations. */
export function refuseOddities(server: Server): void {
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    endWith(
      socket,
      new Problem('EPROTO', 'The daemon is not a proxy. Send requests without CONNECT.', {
        status: 405,
        headers: { allow: 'GET, HEAD, POST, PUT, PATCH, DELETE' },
      }),
      requestId(request),
    );
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const problem = new Problem('EPROTO', 'The expectation is not supported. Use Expect: 100-continue, or none.', {
      status: 417,
    });
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

/** Writes a problem directly to a socket, and closes it. */
function endWith(socket: Duplex, problem: Problem, id: string = randomUUID()): void {
  // Answers must be in the order of their requests (RFC 9112 9.3.2). The client would take this one for the answer that is due, unless
  // that is the answer to the request that was refused.
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
