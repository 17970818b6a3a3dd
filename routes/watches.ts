import { z } from 'zod';
import { problems } from '../schemas/common.ts';
import { CreateWatch, WatchList, WatchParams, WatchView } from '../schemas/watches.ts';
import { type Client, notAllowed } from '../src/clients/client.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';

const tags = ['watches'];

function permitWatch({ rights }: Client): void {
  if (rights.open === 'none') throw notAllowed('open processes');
}

/** Watches: they open what appears. */
export function watchRoutes(app: App, { watches }: Daemon): void {
  app.post('/v1/watches', {
    config: { acts: true, audit: 'watch', permit: permitWatch },
    schema: {
      tags,
      summary: 'Open a handle on every process that matches, from now on',
      body: CreateWatch,
      response: { 201: WatchView, ...problems(404, 422) },
    },
    handler: async (request, reply) => {
      const watch = await watches.create(request.client, request.body, request.claim);
      request.audited = { watch: watch.facts.id };
      return reply.code(201).header('location', `/v1/watches/${watch.facts.id}`).send(watches.view(watch));
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
      reply.send({ watches: watches.list(request.client).map((watch) => watches.view(watch)) });
    },
  });

  app.get('/v1/watches/:id', {
    schema: { tags, summary: 'Read', params: WatchParams, response: { 200: WatchView, ...problems(404) } },
    handler: (request, reply) => {
      reply.send(watches.view(watches.get(request.client, request.params.id)));
    },
  });

  app.delete('/v1/watches/:id', {
    config: { audit: 'unwatch' },
    schema: {
      tags,
      summary: 'Delete; the handles that it has opened stay',
      params: WatchParams,
      response: { 204: z.null().meta({ description: 'Deleted' }), ...problems(404) },
    },
    handler: (request, reply) => {
      watches.delete(watches.get(request.client, request.params.id, 'change'));
      reply.code(204).send(null);
    },
  });
}
