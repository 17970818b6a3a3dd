import type { FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify';

/** A hook that is done when it returns. A hook that gives a promise costs every request a turn of the microtask queue. */
export function passing(look: (request: FastifyRequest, reply: FastifyReply) => void) {
  return (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void => {
    try {
      look(request, reply);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}
