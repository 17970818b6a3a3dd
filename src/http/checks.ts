import type { FastifyContextConfig, FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify';

/**
 * A check that runs on every request before its route. It throws a problem to refuse the request, or returns `answered` if it has
 * replied itself.
 * @param config the configuration of the route; empty if no route matches
 */
export type Check = (
  request: FastifyRequest,
  reply: FastifyReply,
  config: FastifyContextConfig,
) => 'answered' | undefined;

/**
 * Combines checks into one hook, which runs them in order. A separate hook for each would cost every request more than most checks. The
 * hook is not async, because a promise costs a turn of the microtask queue.
 */
export function inOrder(...checks: readonly Check[]) {
  return (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void => {
    try {
      // Read once: the framework builds this object on each access.
      const { config } = request.routeOptions;
      for (const check of checks) if (check(request, reply, config) === 'answered') return;
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}
