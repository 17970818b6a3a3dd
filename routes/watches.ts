import { z } from 'zod';
import { problems } from '../schemas/common.ts';
import { CreateWatch, WatchList, WatchParams, WatchView } from '../schemas/watches.ts';
import { WatchOperations } from '../src/api/watches.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';

const tags = ['watches'];

/** Watches: they open what appears. */
export function watchRoutes(app: App, daemon: Daemon): void {
  const operations = new WatchOperations(daemon);

  app.post('/v1/watches', {
    config: { operation: operations.create },
    schema: {
      tags,
      summary: 'Open a handle on every process that matches, from now on',
      body: CreateWatch,
      response: { 201: WatchView, ...problems(404, 422) },
    },
    handler: async (request, reply) => {
      const watch = await operations.create.run(callOf(request, reply), request.body);
      return reply.code(201).header('location', `/v1/watches/${watch.id}`).send(watch);
    },
  });

  app.get('/v1/watches', {
    schema: {
      tags,
      summary: 'List, newest first',
      querystring: z.strictObject({}),
      response: { 200: WatchList, ...problems() },
    },
    handler: (request, reply) => {
      reply.send({ watches: operations.list.run(callOf(request, reply), undefined) });
    },
  });

  app.get('/v1/watches/:id', {
    schema: { tags, summary: 'Read', params: WatchParams, response: { 200: WatchView, ...problems(404) } },
    handler: (request, reply) => {
      reply.send(operations.get.run(callOf(request, reply), request.params.id));
    },
  });

  app.delete('/v1/watches/:id', {
    config: { operation: operations.delete },
    schema: {
      tags,
      summary: 'Delete; the handles that it has opened stay',
      params: WatchParams,
      response: { 204: z.null().meta({ description: 'Deleted' }), ...problems(404) },
    },
    handler: (request, reply) => {
      operations.delete.run(callOf(request, reply), request.params.id);
      reply.code(204).send(null);
    },
  });
}
