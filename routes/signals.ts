import * as contract from '../schemas/operations/signals.ts';
import { SignalOperations } from '../src/api/signals.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';

/** Registers the routes that signal and terminate processes. */
export function signalRoutes(app: App, daemon: Daemon): void {
  const operations = new SignalOperations(daemon);

  app.post('/v1/handles/:id/signal', {
    config: { operation: operations.signal },
    schema: contract.sendSignal,
    handler: async (request, reply) => {
      await operations.signal.run(callOf(request, reply), { id: request.params.id, ...request.body });
      return reply.code(204).send(null);
    },
  });

  app.post('/v1/handles/:id/terminate', {
    config: { operation: operations.terminate },
    schema: contract.terminate,
    handler: async (request, reply) => {
      const ended = await operations.terminate.run(callOf(request, reply), {
        id: request.params.id,
        ...request.body,
        ...request.query,
      });
      return ended === 'aborted' ? reply.hijack() : reply.send(ended);
    },
  });
}
