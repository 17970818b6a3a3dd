import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { HandleView } from '../../schemas/handles.ts';
import type { WithOutput } from '../../schemas/output.ts';
import type { WaitidResult } from '../../schemas/waits.ts';
import type { Call } from '../api/operation.ts';
import type { OutputAnswers } from '../api/output-answers.ts';
import { Problem } from '../errors/problem.ts';
import { type Answer, Claim, type IdempotencyKeys } from '../idempotency/idempotency-keys.ts';
import { callOf } from './in-flight-requests.ts';
import { untilClosed } from './until-closed.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The claim on the Idempotency-Key of a request, until the answer. */
    claim?: Claim | undefined;
  }
}

const HEADER = 'idempotency-key';

/**
 * Replays the stored answer to a request that repeats an Idempotency-Key. A wait stores its answer itself, together with the status
 * that it collects. The answers of other operations that act are stored here. Any other answer frees the key.
 */
export function idempotency(app: FastifyInstance, keys: IdempotencyKeys, outputs: OutputAnswers): void {
  app.decorateRequest('claim', undefined);

  // After validation, so that bodies are compared as parsed, without their whitespace.
  const begin = async (request: FastifyRequest, reply: FastifyReply): Promise<boolean> => {
    const facts = {
      client: request.client.name,
      key: checked(request.raw.headersDistinct[HEADER]),
      fingerprint: keys.fingerprintOf(textOf(request)),
    };
    const call = callOf(request, reply);
    const found = await keys.claim(facts, call);
    if (found === 'aborted') reply.hijack();
    else if (!(found instanceof Claim)) {
      const { output } = request.query as WithOutput;
      const answer = output === undefined ? found : await withOutput(found, outputs, call, output);
      if (answer === 'aborted') reply.hijack();
      else replay(reply, answer);
    } else {
      request.claim = found;
      // Ends the claim in every case, also if the caller disconnects before an answer.
      untilClosed(reply.raw, { [Symbol.dispose]: () => found.end() });
      return true;
    }
    return false;
  };
  app.addHook('preHandler', (request, reply, done) => {
    const given = request.headers[HEADER];
    if (given === undefined || request.method !== 'POST' || request.is404) done();
    // Without `done` the request stops here, because it has been answered.
    else begin(request, reply).then((isFirst) => isFirst && done(), done);
  });

  app.addHook('onSend', (request, reply, payload, done) => {
    const { claim } = request;
    if (claim !== undefined) conclude(request, reply, payload, claim);
    done(null, payload);
  });
  const conclude = (request: FastifyRequest, reply: FastifyReply, payload: unknown, claim: Claim): void => {
    const { id } = request.params as { id?: string };
    const handle = claim.handle ?? id;
    const done =
      reply.statusCode >= 200 && reply.statusCode < 300 && request.routeOptions.config.operation?.acts === true;
    if (done && handle !== undefined) keys.complete(claim, handle, answerOf(reply, claim.body ?? payload));
    else claim.end();
  };
}

function checked(given: readonly string[] = []): string {
  const [key = '', another] = given;
  if (another === undefined && /^[\x20-\x7e]{1,255}$/.test(key)) return key;
  throw new Problem('EINVAL', 'Idempotency-Key must be 1 to 255 printable characters.', {
    errors: [{ path: 'Idempotency-Key', message: 'must be 1 to 255 printable characters' }],
  });
}

function textOf({ method, url, body }: FastifyRequest): string {
  return JSON.stringify([method, url, Buffer.isBuffer(body) ? body.toString('base64') : (body ?? null)]);
}

function answerOf(reply: FastifyReply, payload: unknown): Answer {
  const location = reply.getHeader('location');
  return {
    status: reply.statusCode,
    ...(typeof location === 'string' && { location }),
    body: typeof payload === 'string' ? payload : '',
  };
}

/** Adds the output as it is now to a stored answer. A key is bound to its query, so the first answer had output too. */
async function withOutput(
  answer: Answer,
  outputs: OutputAnswers,
  call: Call,
  most: number,
): Promise<Answer | 'aborted'> {
  const body = JSON.parse(answer.body) as Partial<HandleView & WaitidResult>;
  const output = await outputs.again(call, (body.id ?? body.handle)!, most);
  return output === 'aborted' ? 'aborted' : { ...answer, body: JSON.stringify({ ...body, output }) };
}

function replay(reply: FastifyReply, { status, location, body }: Answer): FastifyReply {
  reply.code(status).header('idempotent-replayed', 'true');
  if (location !== undefined) reply.header('location', location);
  if (body === '') return reply.send();
  return reply
    .type('application/json; charset=utf-8')
    .serializer(String)
    .send(body as never);
}
