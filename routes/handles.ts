import { z } from 'zod';
import { problems } from '../schemas/common.ts';
import {
  CloseQuery,
  CreateHandle,
  HandleList,
  HandleParams,
  HandleView,
  ListHandles,
  UpdateHandle,
} from '../schemas/handles.ts';
import { type Client, notAllowed } from '../src/clients/client.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callerOf } from '../src/http/in-flight-requests.ts';
import { preferencesOf } from '../src/http/prefer.ts';
import type { Claim } from '../src/idempotency/idempotency-keys.ts';
import type { Handle } from '../src/model/process.ts';
import { untilEnded } from '../src/waits/poll.ts';

/** PATH_MAX: a longer name is no program's, and would only fill the audit. */
const LONGEST_PATH = 4096;

const tags = ['handles'];
type CreateBody = z.infer<typeof CreateHandle>;

/** The ways of a POST, of which a body names one. */
const WAYS = ['spawn', 'open', 'dup'] as const;

/** What the way asks for; a dup asks for nothing but its handle. */
function permitWay({ rights }: Client, body: unknown): void {
  const way = typeof body === 'object' && body !== null ? WAYS.find((each) => each in body) : undefined;
  if (way === 'spawn' && rights.spawn === false) throw notAllowed('spawn');
  if (way === 'open' && rights.open === 'none') throw notAllowed('open processes');
}

/** Handles: made by spawn, open and dup, listed, changed, closed. */
export function handleRoutes(app: App, { handles, signals, parking, watches }: Daemon): void {
  app.post('/v1/handles', {
    config: { acts: true, audit: WAYS, permit: permitWay },
    schema: {
      tags,
      summary: 'Spawn, open or dup',
      body: CreateHandle,
      response: { 201: HandleView, ...problems(404, 409, 410, 422, 501) },
    },
    handler: async (request, reply) => {
      const { spawn, open } = request.body;
      request.audited = {
        program: spawn?.argv[0].slice(0, LONGEST_PATH),
        user: spawn?.user,
        pid: open?.pid,
      };
      const handle = await make(request);
      request.audited = { ...request.audited, handle: handle.id, pid: handle.process.pid };
      const { waitMs } = preferencesOf(request.headers.prefer);
      if (request.body.spawn !== undefined && waitMs !== undefined) {
        if ((await untilEnded(parking, handle, waitMs, callerOf(request, reply))) === 'aborted') return reply.hijack();
        reply.header('preference-applied', `wait=${waitMs / 1000}`);
      }
      return reply.code(201).header('location', `/v1/handles/${handle.id}`).send(handles.view(handle));
    },
  });

  function make({
    client,
    claim,
    body,
  }: {
    client: Client;
    claim?: Claim | undefined;
    body: CreateBody;
  }): Handle | Promise<Handle> {
    const { spawn, open, dup, nonblocking = false, labels } = body;
    // An earlier try got as far as that before the daemon died.
    if (claim?.handle != null) return handles.get(client, claim.handle);
    if (spawn) return handles.spawn(client, spawn, { nonblocking, labels, claim });
    if (open?.match) return watches.openOne(client, open.match, { nonblocking, labels, claim });
    if (open)
      return handles.open(client, { pid: open.pid!, inode: open.inode ?? undefined }, { nonblocking, labels, claim });
    return handles.dup(client, dup!, { labels, claim });
  }

  app.get('/v1/handles', {
    schema: {
      tags,
      summary: 'List, newest first',
      querystring: ListHandles,
      response: { 200: HandleList, ...problems() },
    },
    handler: (request, reply) => {
      const { state, label, limit, cursor } = request.query;
      const { handles: page, next } = handles.list(request.client, { state, labels: label, limit, before: cursor });
      reply.send({ handles: page, next: next === null ? null : `c${next}` });
    },
  });

  app.get('/v1/handles/:id', {
    schema: { tags, summary: 'Read', params: HandleParams, response: { 200: HandleView, ...problems(404, 410) } },
    handler: (request, reply) => {
      reply.send(handles.view(handles.get(request.client, request.params.id)));
    },
  });

  app.patch('/v1/handles/:id', {
    config: { audit: 'change' },
    schema: {
      tags,
      summary: 'Change O_NONBLOCK and labels',
      params: HandleParams,
      body: UpdateHandle,
      response: { 200: HandleView, ...problems(404, 410) },
    },
    handler: (request, reply) => {
      const handle = handles.get(request.client, request.params.id, 'change');
      handles.update(handle, request.body.nonblocking, request.body.labels);
      reply.send(handles.view(handle));
    },
  });

  app.delete('/v1/handles/:id', {
    config: { audit: 'close' },
    schema: {
      tags,
      summary: 'Close; the process lives on unless a signal is given',
      params: HandleParams,
      querystring: CloseQuery,
      response: { 204: z.null().meta({ description: 'Closed' }), ...problems(404, 410) },
    },
    handler: (request, reply) => {
      const { client, params, query } = request;
      request.audited = { signal: query.signal };
      const handle = handles.get(client, params.id, 'change');
      if (query.signal !== undefined) signals.sendIfThere(handles.get(client, params.id, 'signal'), query.signal);
      handles.close(handle);
      reply.code(204).send(null);
    },
  });
}
