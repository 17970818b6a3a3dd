import type { HandleView } from '../schemas/handles.ts';
import * as contract from '../schemas/operations/handles.ts';
import { renewLease } from '../schemas/operations/leases.ts';
import { HandleOperations } from '../src/api/handles.ts';
import { LeaseOperations } from '../src/api/leases.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import { preferencesOf } from '../src/http/prefer.ts';

/** Registers the routes of handles: create by spawn, open or dup; list, read, change and close; renew a lease. */
export function handleRoutes(app: App, daemon: Daemon): void {
  const operations = new HandleOperations(daemon);
  const leases = new LeaseOperations(daemon);

  app.post('/v1/handles', {
    config: { operation: operations.create },
    schema: contract.createHandle,
    handler: async (request, reply) => {
      const { waitMs } = preferencesOf(request.headers.prefer);
      const created = await operations.create.run(callOf(request, reply), {
        body: request.body,
        waitMs,
        ...request.query,
      });
      if (created === 'aborted') return reply.hijack();
      const { handle, waited } = created;
      if (waited) reply.header('preference-applied', `wait=${waitMs! / 1000}`);
      return reply.code(201).header('location', `/v1/handles/${handle.id}`).send(handle);
    },
  });

  app.get('/v1/handles', {
    schema: contract.listHandles,
    handler: (request, reply) => {
      reply.send(operations.list.run(callOf(request, reply), request.query));
    },
  });

  app.get('/v1/handles/:id', {
    schema: contract.getHandle,
    handler: (request, reply) => {
      const input = { id: request.params.id, ...request.query };
      const respond = (view: HandleView | 'aborted'): void => {
        if (view === 'aborted') reply.hijack();
        else reply.send(view);
      };
      const view = operations.get.run(callOf(request, reply), input);
      if (view instanceof Promise) return view.then(respond);
      respond(view);
      return undefined;
    },
  });

  app.get('/v1/handles/:id/usage', {
    schema: contract.getUsage,
    handler: async (request, reply) =>
      reply.send(await operations.usage.run(callOf(request, reply), request.params.id)),
  });

  app.patch('/v1/handles/:id', {
    config: { operation: operations.update },
    schema: contract.updateHandle,
    handler: (request, reply) => {
      reply.send(operations.update.run(callOf(request, reply), { id: request.params.id, body: request.body }));
    },
  });

  app.post('/v1/handles/:id/lease', {
    config: { operation: leases.renew },
    schema: renewLease,
    handler: (request, reply) => {
      reply.send(leases.renew.run(callOf(request, reply), request.params.id));
    },
  });

  app.delete('/v1/handles/:id', {
    config: { operation: operations.close },
    schema: contract.closeHandle,
    handler: (request, reply) => {
      operations.close.run(callOf(request, reply), { id: request.params.id, ...request.query });
      reply.code(204).send(null);
    },
  });
}
