import * as contract from '../schemas/operations/watches.ts';
import { WatchOperations } from '../src/api/watches.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';

/** Registers the routes of watches, which open a handle on every process that matches. */
export function watchRoutes(app: App, daemon: Daemon): void {
  const operations = new WatchOperations(daemon);

  app.post('/v1/watches', {
    config: { operation: operations.create },
    schema: contract.createWatch,
    handler: async (request, reply) => {
      const watch = await operations.create.run(callOf(request, reply), request.body);
      return reply.code(201).header('location', `/v1/watches/${watch.id}`).send(watch);
    },
  });

  app.get('/v1/watches', {
    schema: contract.listWatches,
    handler: (request, reply) => {
      reply.send({ watches: operations.list.run(callOf(request, reply), undefined) });
    },
  });

  app.get('/v1/watches/:id', {
    schema: contract.getWatch,
    handler: (request, reply) => {
      reply.send(operations.get.run(callOf(request, reply), request.params.id));
    },
  });

  app.delete('/v1/watches/:id', {
    config: { operation: operations.delete },
    schema: contract.deleteWatch,
    handler: (request, reply) => {
      operations.delete.run(callOf(request, reply), request.params.id);
      reply.code(204).send(null);
    },
  });
}
