import type { FastifyContextConfig, FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify';

/**
 * What a request passes on its way to its route. It may throw a problem, or answer and say so: then the request goes no further.
 * @param config the route's; that of no route where there is none
 */
export type Look = (
  request: FastifyRequest,
  reply: FastifyReply,
  config: FastifyContextConfig,
) => 'answered' | undefined;

/**
 * One hook that looks at a request several times, in this order. A hook of its own for each would cost every request more than
 * most looks do, and one that gives a promise a turn of the microtask queue.
 */
export function passing(...looks: readonly Look[]) {
  return (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void => {
    try {
      // Once, as the framework makes it anew whenever it is asked.
      const { config } = request.routeOptions;
      for (const look of looks) if (look(request, reply, config) === 'answered') return;
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}
