import type { OutgoingHttpHeaders } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { WebSocket } from 'ws';
import type { z } from 'zod';
import { ClientFrame, type EventQuery } from '../schemas/events.ts';
import * as contract from '../schemas/operations/events.ts';
import { EventOperations } from '../src/api/events.ts';
import { type Handled, LeaseOperations } from '../src/api/leases.ts';
import type { Client } from '../src/clients/client.ts';
import type { Daemon } from '../src/daemon.ts';
import { Problem } from '../src/errors/problem.ts';
import { mediaType } from '../src/http/accept.ts';
import type { App } from '../src/http/app-type.ts';
import { parseFrame } from '../src/http/client-frames.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import {
  answerPings,
  closeSocket,
  closings,
  dropSilent,
  eventStreamSink,
  onceClosing,
  POLICY_VIOLATION,
  webSocketSink,
} from '../src/http/sinks.ts';
import { untilClosed } from '../src/http/until-closed.ts';
import { LeaseHolder } from '../src/signals/lifetimes.ts';

type Query = z.infer<typeof EventQuery>;

/** The interval of comments on an event stream, which keep it open through proxies and detect disconnected readers. */
const HEARTBEAT_MS = 15_000;

/** Registers the route of events, which serves a WebSocket, an event stream or a page. */
export function eventRoutes(app: App, daemon: Daemon): void {
  const operations = new EventOperations(daemon);
  const leases = new LeaseOperations(daemon);

  app.route({
    method: 'GET',
    url: contract.listEvents.path,
    schema: contract.listEvents,
    // The quota is checked before the upgrade, so that a refusal is an ordinary HTTP answer.
    preHandler: async ({ ws, raw, client, query }) => {
      if (ws) untilClosed(raw.socket, operations.reserve(client, query as Query));
    },
    handler: async (request, reply) => {
      const type = mediaType(request.headers.accept, ['application/json', 'text/event-stream']);
      if (type === undefined)
        throw new Problem(
          'EPROTO',
          'No acceptable media type is available. Accept application/json or text/event-stream.',
          { status: 406 },
        );
      const { client } = request;
      const query = withIds(client, request.query);
      operations.requireKnown(client, query);
      if (type === 'text/event-stream')
        return request.method === 'HEAD' ? headOfStream(reply) : stream(request, reply, query);
      const page = await operations.page.run(callOf(request, reply), query);
      if (page === 'aborted') return reply.hijack();
      // The frames are already JSON texts, the same as those of the streams.
      const { frames, gap, next } = page;
      const text = `{"events":[${frames.join()}],"gap":${JSON.stringify(gap)},"next":${next}}`;
      return reply
        .type('application/json; charset=utf-8')
        .serializer(String)
        .send(text as never);
    },
    wsHandler: (socket, request) => converse(socket, request, withIds(request.client, request.query as Query)),
  });

  /** Resolves names once, so that a subscription stays with its handle when the name is given to another. */
  function withIds(client: Client, query: Query): Query {
    return query.handle === undefined ? query : { ...query, handle: operations.idsOf(client, query.handle) };
  }

  function stream(request: FastifyRequest, reply: FastifyReply, query: Query): FastifyReply {
    const since = lastEventId(request) ?? query.since;
    untilClosed(reply.raw, operations.reserve(request.client, query));
    const { raw } = headOfStream(reply);
    const subscriber = operations.attach(request.client, query, eventStreamSink(raw), () => raw.end());
    const heartbeat = setInterval(() => raw.write(': \n\n'), HEARTBEAT_MS);
    raw.on('error', () => {}); // `close` follows every error
    const leave = app.inFlightRequests.add(request, () => raw.destroy());
    raw.once('close', () => {
      leave();
      clearInterval(heartbeat);
      operations.detach(subscriber);
    });
    subscriber.start(query.handle, since);
    return reply;
  }

  /** Attaches all listeners synchronously, because earlier frames would be lost. A listener must not throw, which would end the daemon. */
  function converse(socket: WebSocket, request: FastifyRequest, query: Query): void {
    const { client } = request;
    const sink = webSocketSink(socket, request.raw.socket);
    const idsOf = (refs: readonly string[]): string[] => operations.idsOf(client, refs);
    const subscriber = operations.attach(client, query, sink, (why) =>
      closeSocket(socket, closings[why].code, closings[why].reason),
    );
    const leave = app.inFlightRequests.add(request, () => closeSocket(socket, POLICY_VIOLATION, 'credentials revoked'));
    const holder = new LeaseHolder();
    onceClosing(socket, request.raw.socket, () => {
      leave();
      operations.detach(subscriber);
      leases.end(holder);
    });
    const take = (frame: z.infer<typeof ClientFrame>): void => {
      const { type, handles } = frame;
      if (type === 'subscribe') subscriber.subscribe(idsOf(handles), frame.since);
      else if (type === 'unsubscribe') subscriber.unsubscribe(idsOf(handles));
      else if (type === 'hold') answer('held', leases.hold(client, handles, holder));
      else answer('released', leases.release(client, handles, holder));
    };
    const answer = (type: 'held' | 'released', { handles, refused }: Handled): void => {
      if (handles.length > 0) subscriber.send({ type, handles });
      for (const { errno, message } of refused) subscriber.error(errno, message);
    };
    socket.on('message', (data, isBinary) => {
      if (!subscriber.admit()) return;
      const frame = isBinary ? NO_FRAME : parseFrame(ClientFrame, String(data), NO_FRAME);
      if (typeof frame === 'string') subscriber.error('EINVAL', frame);
      else take(frame);
    });
    answerPings(socket);
    dropSilent(socket, request.raw.socket);
    subscriber.start(query.handle, query.since);
  }
}

function headOfStream(reply: FastifyReply): FastifyReply {
  reply.hijack();
  const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' };
  reply.raw.writeHead(200, { ...(reply.getHeaders() as OutgoingHttpHeaders), ...headers });
  if (reply.request.method === 'HEAD') reply.raw.end();
  return reply;
}

/** Parses Last-Event-ID, from which a reader resumes; it takes precedence over `since`. */
function lastEventId({ headers }: FastifyRequest): number | undefined {
  const id = headers['last-event-id'];
  if (id === undefined || id === '') return undefined;
  const seq = Number(id);
  if (!/^\d{1,16}$/.test(String(id)) || !Number.isSafeInteger(seq))
    throw new Problem('EINVAL', 'Last-Event-ID is not a seq. Send the id of the last event.', {
      errors: [{ path: 'Last-Event-ID', message: 'must be a seq' }],
    });
  return seq;
}

const NO_FRAME = 'The message is not a frame. Send subscribe, unsubscribe, hold or release with handles, as JSON.';
