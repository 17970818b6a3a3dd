import type { FastifyBaseLogger, FastifyRequest } from 'fastify';
import type { RawData, WebSocket } from 'ws';
import { AttachClientFrame, type AttachQuery } from '../schemas/attach.ts';
import * as contract from '../schemas/operations/attach.ts';
import { AttachOperations } from '../src/api/attach.ts';
import type { Attachment, Closing, FrameOfClient } from '../src/api/attachment.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { parseFrame } from '../src/http/client-frames.ts';
import { notUpgraded } from '../src/http/guard.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import {
  ABNORMAL,
  answerPings,
  closeSocket,
  closings,
  dropSilent,
  INTERNAL_ERROR,
  NORMAL,
  onceClosing,
  POLICY_VIOLATION,
  webSocketSink,
} from '../src/http/sinks.ts';
import { untilClosed } from '../src/http/until-closed.ts';

const endings: Record<Exclude<Closing, 'ended'>, { code: number; reason: string }> = {
  ...closings,
  stale: { code: POLICY_VIOLATION, reason: 'handle closed' },
  revoked: { code: POLICY_VIOLATION, reason: 'credentials revoked' },
  broken: { code: INTERNAL_ERROR, reason: 'internal error' },
};

/** Registers the route that attaches a WebSocket to a process. */
export function attachRoutes(app: App, daemon: Daemon, logger: FastifyBaseLogger): void {
  const operations = new AttachOperations(daemon);
  const attachments = new WeakMap<FastifyRequest, Attachment>();

  app.route({
    method: 'GET',
    url: '/v1/handles/:id/attach',
    schema: contract.attach,
    config: { operation: operations.open },
    // Everything that can be refused is, before the upgrade, so that a refusal is an ordinary HTTP answer.
    preHandler: async (request, reply) => {
      const { ws, raw, params, query } = request;
      if (!ws) throw notUpgraded(raw);
      const call = callOf(request, reply);
      untilClosed(raw.socket, operations.reserve(call));
      const attachment = await operations.open.run(call, { id: params.id, query: query as AttachQuery });
      untilClosed(raw.socket, { [Symbol.dispose]: () => attachment.leave() });
      attachments.set(request, attachment);
    },
    handler: async ({ raw }) => {
      throw notUpgraded(raw);
    },
    wsHandler: (socket, request) => converse(socket, request, attachments.get(request)!),
  });

  /** Attaches all listeners synchronously, because earlier frames would be lost. A listener must not throw, which would end the daemon. */
  function converse(socket: WebSocket, request: FastifyRequest, attachment: Attachment): void {
    const carrier = request.raw.socket;
    const leave = app.inFlightRequests.add(request, () => attachment.close('revoked'));
    onceClosing(socket, carrier, () => {
      leave();
      attachment.leave();
    });
    // Without a close frame the client has not ended what it was sending.
    socket.once('close', (code) => code === ABNORMAL && attachment[Symbol.dispose]());
    socket.on('message', (data, isBinary) => attachment.receive(frameOf(data, isBinary)));
    answerPings(socket);
    dropSilent(socket, carrier);
    attachment.begin(
      Object.assign(webSocketSink(socket, carrier), {
        close: (why: Closing): void => {
          // The client may need long to read the end.
          if (why === 'ended') socket.close(NORMAL, 'end');
          else closeSocket(socket, endings[why].code, endings[why].reason);
        },
        fault: (error: unknown): void =>
          logger.error({ err: error, requestId: request.id }, 'an attached socket failed'),
      }),
    );
  }
}

const NO_FRAME = 'The message is not a frame. Send resize, eof or signal as JSON, and input as a binary frame.';

function frameOf(data: RawData, isBinary: boolean): FrameOfClient {
  return isBinary ? (data as Buffer) : parseFrame(AttachClientFrame, String(data), NO_FRAME);
}
