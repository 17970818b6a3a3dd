import * as contract from '../schemas/operations/waits.ts';
import { type WaitidAnswer, WaitOperations } from '../src/api/waits.ts';
import type { Daemon } from '../src/daemon.ts';
import { retryAfter } from '../src/errors/problem.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import { preferencesOf } from '../src/http/prefer.ts';
import { sendProblem } from '../src/http/problems.ts';

/** Registers the routes of waitid(2) on one handle and poll(2) on many. */
export function waitRoutes(app: App, daemon: Daemon): void {
  const operations = new WaitOperations(daemon);

  app.post('/v1/handles/:id/waitid', {
    schema: contract.waitid,
    handler: (request, reply) => {
      const { waitMs, respondAsync } = preferencesOf(request.headers.prefer);
      const { options, timeoutMs = waitMs } = request.body;
      const respond = (answer: WaitidAnswer): void => {
        if (answer === 'aborted') reply.hijack();
        // Not thrown, because an exception costs as much as the call itself.
        else if ('again' in answer) sendProblem(reply, answer.again);
        else if (answer.retry !== undefined)
          reply
            .code(202)
            .headers({ ...retryAfter(answer.retry), 'preference-applied': 'respond-async' })
            .send(answer.result);
        else {
          if (waitMs !== undefined && timeoutMs === waitMs) reply.header('preference-applied', `wait=${waitMs / 1000}`);
          reply.send(answer.result);
        }
      };
      const call = callOf(request, reply);
      const answer = operations.waitid.run(call, {
        id: request.params.id,
        options,
        timeoutMs,
        respondAsync,
        ...request.query,
      });
      if (answer instanceof Promise) return answer.then(respond);
      respond(answer);
      return undefined;
    },
  });

  app.post('/v1/poll', {
    schema: contract.poll,
    handler: async (request, reply) => {
      const { timeoutMs = preferencesOf(request.headers.prefer).waitMs } = request.body;
      const answer = await operations.poll.run(callOf(request, reply), { ...request.body, timeoutMs });
      return answer === 'aborted' ? reply.hijack() : reply.send(answer);
    },
  });
}
