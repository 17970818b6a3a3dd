import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { ProblemErrno } from '../../schemas/vocabulary.ts';
import type { AuditFacts } from '../api/operation.ts';
import type { Watches } from '../watches/watches.ts';
import type { Check } from './checks.ts';
import type { Listeners } from './listeners.ts';

declare module 'fastify' {
  interface FastifyRequest {
    audited: AuditFacts;
    /** The errno of the problem that answers the request; `null` without one. */
    errno: ProblemErrno | null;
    /** The operation of a request that was refused before its body was parsed, as far as it is known. */
    operation: string | null;
  }
  interface FastifyInstance {
    /** Called for every answer that is a problem. */
    onRefusal(request: FastifyRequest, reply: FastifyReply, errno: ProblemErrno): void;
  }
}

/** The errnos that are audited on every route. */
const refusals: ReadonlySet<ProblemErrno> = new Set<ProblemErrno>(['EACCES', 'EPERM', 'EDQUOT']);

/**
 * Writes one audit line for every operation and every refusal: client, peer, operation, result and request id.
 * @param log `null` if the audit is off
 * @returns the checks to run before each request
 */
export function audit(app: FastifyInstance, log: Logger | null, listeners: () => Listeners): Check[] {
  app.decorateRequest('audited', null as unknown as FastifyRequest['audited']);
  app.decorateRequest('errno', null);
  app.decorateRequest('operation', null);
  app.decorate('onRefusal', (request: FastifyRequest, reply: FastifyReply, errno: ProblemErrno): void => {
    if (log === null) return;
    const audit = request.routeOptions.config.operation?.audit;
    if (typeof audit === 'object' && request.body == null) peek(request, audit);
    if (refusals.has(errno) && audit === undefined) writeWhenClosed(log, request, reply);
  });
  // The peer is read now, because a closed connection has no address any more.
  const writeWhenClosed = (log: Logger, request: FastifyRequest, reply: FastifyReply): void => {
    const peer = listeners().nameOfPeer(request.raw.socket);
    reply.raw.once('close', () => write(log, request, reply, peer));
  };
  if (log === null) return [];
  const check: Check = (request, reply, config) => {
    // At the close of the connection, because an operation whose caller disconnects gets no response but was carried out.
    if (config.operation?.audit !== undefined) writeWhenClosed(log, request, reply);
  };
  return [check];
}

/** Writes an audit line for every handle that a watch opens. */
export function auditWatches(watches: Watches, log: Logger | null): void {
  if (log === null) return;
  watches.onOpened((handle, watch) =>
    log.info({
      audit: 'open',
      client: handle.client,
      watch,
      handle: handle.id,
      pid: handle.process.pid,
      result: 'ok',
    }),
  );
}

/** A JSON string, with a following colon if it is the name of a field, or a bracket of an object or an array. */
const TOKEN = /"(?:[^"\\]|\\.)*"\s*:?|[{}[\]]/g;

/** In bytes. */
const LONGEST_PEEK = 4096;

/** Finds the operation of a request that is refused before its body is parsed, in the part of the body that arrived with the headers. */
function peek(request: FastifyRequest, fields: readonly string[]): void {
  request.raw.once('data', (chunk: Buffer) => {
    let depth = 0;
    for (const [token] of chunk.toString('utf8', 0, LONGEST_PEEK).matchAll(TOKEN)) {
      if (token === '{' || token === '[') depth += 1;
      else if (token === '}' || token === ']') depth -= 1;
      else if (depth === 1)
        request.operation ??= fields.find((field) => token.startsWith(`"${field}"`) && token.endsWith(':')) ?? null;
    }
  });
}

/** Returns the operation's name in the audit, which is the same if the operation is refused. */
function operationOf({ routeOptions, body, operation }: FastifyRequest): string {
  const { audit = REFUSAL } = routeOptions.config.operation ?? {};
  if (typeof audit === 'string') return audit;
  const given = typeof body === 'object' && body !== null ? audit.find((field) => field in body) : undefined;
  return given ?? operation ?? REFUSAL;
}

const REFUSAL = 'refusal';

function write(log: Logger, request: FastifyRequest, reply: FastifyReply, peer: string): void {
  const operation = operationOf(request);
  const { id } = request.params as { id?: string };
  log.info({
    audit: operation,
    client: request.client?.name ?? null,
    peer,
    requestId: request.id,
    ...(operation === REFUSAL && { method: request.method, route: request.routeOptions.url ?? null }),
    ...(id !== undefined && { handle: id }),
    ...request.audited,
    ...(reply.hasHeader('idempotent-replayed') && { replayed: true }),
    // A WebSocket has no answer that finishes.
    result: request.errno ?? (reply.raw.writableFinished || request.ws ? 'ok' : 'unanswered'),
  });
}
