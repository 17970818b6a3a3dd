import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { ProblemErrno } from '../errors/problem.ts';
import type { Watches } from '../watches/watches.ts';
import type { Look } from './passing.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** What is told of it beside who, what and how it went. No argument, no environment, no label: those may be secrets. */
    audited: Record<string, string | number | boolean | null | undefined>;
    /** Of the problem that it was answered with. */
    errno: ProblemErrno | null;
  }
  interface FastifyInstance {
    /** Told of every problem that is answered with. */
    onRefusal(request: FastifyRequest, reply: FastifyReply, errno: ProblemErrno): void;
  }
  interface FastifyContextConfig {
    /** What it does, where that is audited. */
    audit?: string | ((body: unknown) => string);
  }
}

/** What is audited wherever it happens. */
const refusals: ReadonlySet<ProblemErrno> = new Set<ProblemErrno>(['EACCES', 'EPERM', 'EDQUOT']);

/** A line for everything that is done or refused: who, what, with which result, under which request id. */
export function audit(app: FastifyInstance, log: Logger | null): Look[] {
  app.decorateRequest('audited', null as unknown as FastifyRequest['audited']);
  app.decorateRequest('errno', null);
  app.decorate('onRefusal', (request: FastifyRequest, reply: FastifyReply, errno: ProblemErrno): void => {
    if (log === null || !refusals.has(errno) || request.routeOptions.config.audit !== undefined) return;
    reply.raw.once('close', () => write(log, request, reply));
  });
  if (log === null) return [];
  const look: Look = (request, reply, config) => {
    // Not on the response: one whose caller has gone away has none, and was done all the same.
    if (config.audit !== undefined) reply.raw.once('close', () => write(log, request, reply));
  };
  return [look];
}

/** Handles that are opened without a request: by a watch. */
export function auditWatches(watches: Watches, log: Logger | null): void {
  watches.onOpened = (handle, watch) =>
    log?.info({
      audit: 'open',
      client: handle.client,
      watch,
      handle: handle.id,
      pid: handle.process.pid,
      result: 'ok',
    });
}

function write(log: Logger, request: FastifyRequest, reply: FastifyReply): void {
  const { audit: action = 'refusal' } = request.routeOptions.config;
  const { id } = request.params as { id?: string };
  log.info({
    audit: typeof action === 'string' ? action : action(request.body),
    client: request.client?.name ?? null,
    peer: peerOf(request),
    requestId: request.id,
    ...(action === 'refusal' && { method: request.method, route: request.routeOptions.url ?? null }),
    ...(id !== undefined && { handle: id }),
    ...request.audited,
    ...(reply.hasHeader('idempotent-replayed') && { replayed: true }),
    result: request.errno ?? (reply.raw.writableFinished ? 'ok' : 'unanswered'),
  });
}

function peerOf({ credentials, ip }: FastifyRequest): string {
  const peer = credentials?.peer;
  return typeof peer === 'object' && 'uid' in peer ? `uid:${peer.uid}` : (ip ?? 'unix');
}
