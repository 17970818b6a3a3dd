import { z } from 'zod';
import { problems } from '../schemas/common.ts';
import { HandleParams } from '../schemas/handles.ts';
import { Signal, Terminate } from '../schemas/signals.ts';
import { WaitidResult } from '../schemas/waits.ts';
import { SignalOperations } from '../src/api/signals.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';

const tags = ['signals'];

/** Signals, and the orderly end. */
export function signalRoutes(app: App, daemon: Daemon): void {
  const operations = new SignalOperations(daemon);

  app.post('/v1/handles/:id/signal', {
    config: { operation: operations.signal },
    schema: {
      tags,
      summary: 'Signal the process, its group or its tree',
      params: HandleParams,
      body: Signal,
      response: { 204: z.null().meta({ description: 'Sent' }), ...problems(404, 410, 422, 501, 504) },
    },
    handler: async (request, reply) => {
      await operations.signal.run(callOf(request, reply), { id: request.params.id, ...request.body });
      return reply.code(204).send(null);
    },
  });

  app.post('/v1/handles/:id/terminate', {
    config: { operation: operations.terminate },
    schema: {
      tags,
      summary: 'SIGTERM, SIGCONT, and SIGKILL after the grace; answers once it has ended',
      params: HandleParams,
      body: Terminate,
      response: { 200: WaitidResult, ...problems(404, 410, 422, 504) },
    },
    handler: async (request, reply) => {
      const ended = await operations.terminate.run(callOf(request, reply), { id: request.params.id, ...request.body });
      return ended === 'aborted' ? reply.hijack() : reply.send(ended);
    },
  });
}
