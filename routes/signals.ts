import { z } from 'zod';
import { problems } from '../schemas/common.ts';
import { HandleParams } from '../schemas/handles.ts';
import { Signal, Terminate } from '../schemas/signals.ts';
import { WaitidResult } from '../schemas/waits.ts';
import { type Client, notAllowed } from '../src/clients/client.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { callerOf } from '../src/http/in-flight-requests.ts';

const tags = ['signals'];

function permitSignal({ rights }: Client): void {
  if (!rights.signal) throw notAllowed('send signals');
}

/** Signals, and the orderly end. */
export function signalRoutes(app: App, { handles, signals, terminations }: Daemon): void {
  app.post('/v1/handles/:id/signal', {
    config: { acts: true, audit: 'signal', permit: permitSignal },
    schema: {
      tags,
      summary: 'Signal the process, its group or its tree',
      params: HandleParams,
      body: Signal,
      response: { 204: z.null().meta({ description: 'Sent' }), ...problems(404, 410, 422, 501, 504) },
    },
    handler: async (request, reply) => {
      const { signal, scope } = request.body;
      request.audited = { signal, scope };
      const handle = handles.get(request.client, request.params.id, 'signal');
      if (scope === 'tree') await signals.sendToTree(handle, signal);
      else signals.send(handle, signal, scope);
      return reply.code(204).send(null);
    },
  });

  app.post('/v1/handles/:id/terminate', {
    config: { acts: true, audit: 'terminate', permit: permitSignal },
    schema: {
      tags,
      summary: 'SIGTERM, SIGCONT, and SIGKILL after the grace; answers once it has ended',
      params: HandleParams,
      body: Terminate,
      response: { 200: WaitidResult, ...problems(404, 410, 422, 504) },
    },
    handler: async (request, reply) => {
      const handle = handles.get(request.client, request.params.id, 'signal');
      const { graceMs } = request.body;
      const caller = callerOf(request, reply);
      if ((await terminations.terminate(handle, graceMs, caller)) === 'aborted') return reply.hijack();
      const { siginfo, outcome, rusage } = handle.process.ending!;
      const body: WaitidResult = { handle: handle.id, siginfo, outcome, rusage };
      return reply.send(body);
    },
  });
}
