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
    /** Of the problem that it was answered with. */
    errno: ProblemErrno | null;
    /** What it asks for, as far as that is known; `null` where the body was not there. */
    operation: string | null;
  }
  interface FastifyInstance {
    /** Told of every problem that is answered with. */
    onRefusal(request: FastifyRequest, reply: FastifyReply, errno: ProblemErrno): void;
  }
}

/** What is audited wherever it happens. */
const refusals: ReadonlySet<ProblemErrno> = new Set<ProblemErrno>(['EACCES', 'EPERM', 'EDQUOT']);

/** A line for everything that is done or refused: who, what, with which result, under which request id. */
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
  // Now, since a connection that has closed does not tell any more where it came from.
  const writeWhenClosed = (log: Logger, request: FastifyRequest, reply: FastifyReply): void => {
    const peer = listeners().nameOfPeer(request.raw.socket);
    reply.raw.once('close', () => write(log, request, reply, peer));
  };
  if (log === null) return [];
  const check: Check = (request, reply, config) => {
    // Not on the response: one whose caller has gone away has none, and was done all the same.
    if (config.operation?.audit !== undefined) writeWhenClosed(log, request, reply);
  };
  return [check];
}

/** Handles that are opened without a request: by a watch. */
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

/** A text, with the colon that makes it the name of a field, or what opens and closes an object or an array. */
const TOKEN = /"(?:[^"\\]|\\.)*"\s*:?|[{}[\]]/g;

/** Bytes. */
const LONGEST_PEEK = 4096;

/** Finds what a request asks for that is refused before its body is read, in as much of it as has come with its head. */
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

/** One verb for one operation, whether it is done or refused. */
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
    result: request.errno ?? (reply.raw.writableFinished ? 'ok' : 'unanswered'),
  });
}
