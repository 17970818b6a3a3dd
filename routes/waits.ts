import type { FastifyReply } from 'fastify';
import { problems } from '../schemas/common.ts';
import { HandleParams } from '../schemas/handles.ts';
import { Poll, PollResult, Waitid, WaitidResult } from '../schemas/waits.ts';
import type { Daemon } from '../src/daemon.ts';
import { retryAfter } from '../src/errors/problem.ts';
import type { App } from '../src/http/app-type.ts';
import { callerOf } from '../src/http/in-flight-requests.ts';
import { preferencesOf } from '../src/http/prefer.ts';
import { sendProblem } from '../src/http/problems.ts';
import type { Handle } from '../src/model/process.ts';
import { poll } from '../src/waits/poll.ts';
import { bodyOf, requireEvent, type WaitAnswer } from '../src/waits/waitid.ts';

const tags = ['waits'];

/** waitid(2) on one handle, and poll(2) over many. */
export function waitRoutes(app: App, { handles, waits, parking }: Daemon): void {
  app.post('/v1/handles/:id/waitid', {
    schema: {
      tags,
      summary: 'Wait, and collect unless WNOWAIT is given',
      params: HandleParams,
      body: Waitid,
      response: { 200: WaitidResult, 202: WaitidResult, ...problems(404, 409, 410, 422) },
    },
    handler: (request, reply) => {
      const prefer = preferencesOf(request.headers.prefer);
      requireEvent(request.body.options);
      const purpose = request.body.options.includes('WNOWAIT') ? 'see' : 'take';
      const handle = handles.get(request.client, request.params.id, purpose);
      const timeoutMs = request.body.timeoutMs ?? prefer.waitMs;
      const respond = (answer: WaitAnswer): void => {
        if (answer === 'aborted') {
          reply.hijack();
          return;
        }
        if ((answer === 'timed out' || answer === 'again') && prefer.respondAsync) {
          answerLater(reply, waits, handle);
          return;
        }
        // Not thrown: that would cost as much as the call itself.
        if (answer === 'again') {
          sendProblem(reply, waits.again(handle));
          return;
        }
        if (prefer.waitMs !== undefined && timeoutMs === prefer.waitMs)
          reply.header('preference-applied', `wait=${prefer.waitMs / 1000}`);
        const body: WaitidResult = bodyOf(handle, typeof answer === 'string' ? { outcome: null } : answer);
        reply.send(answer === 'timed out' ? { ...body, timedOut: true } : body);
      };
      const caller = callerOf(request, reply);
      const answer = waits.waitid(handle, { options: request.body.options, timeoutMs, caller, claim: request.claim });
      // Most are answered at once, and then a promise would only cost.
      if (answer instanceof Promise) return answer.then(respond);
      respond(answer);
      return undefined;
    },
  });

  app.post('/v1/poll', {
    schema: {
      tags,
      summary: 'Wait for any, all or a number of handles; collects nothing',
      body: Poll,
      response: { 200: PollResult, ...problems(404, 410, 422) },
    },
    handler: async (request, reply) => {
      const { handles: ids, timeoutMs, ...rest } = request.body;
      const answer = await poll(parking, {
        ...rest,
        handles: ids.map((id) => handles.get(request.client, id)),
        timeoutMs: timeoutMs ?? preferencesOf(request.headers.prefer).waitMs,
        caller: callerOf(request, reply),
      });
      return answer === 'aborted' ? reply.hijack() : reply.send(answer);
    },
  });
}

/** 202 of `respond-async`: nothing yet, and the same hint as with EAGAIN. */
function answerLater(reply: FastifyReply, waits: Daemon['waits'], handle: Handle): void {
  const retry = waits.retry(handle);
  const body: WaitidResult = { ...bodyOf(handle, { outcome: null }), retry };
  reply
    .code(202)
    .headers({ ...retryAfter(retry), 'preference-applied': 'respond-async' })
    .send(body);
}
