import type { FastifyContextConfig, FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify';

/**
 * A check that every request passes before its route. It throws a problem to refuse the request. If it replies itself it returns
 * `answered`, and the request goes no further.
 * @param config the route's; an empty one if no route matches
 */
export type Check = (
  request: FastifyRequest,
  reply: FastifyReply,
  config: FastifyContextConfig,
) => 'answered' | undefined;

/**
 * Makes one hook of several checks, which run in this order. One hook each would cost every request more than most checks do, and
 * a hook that returns a promise costs a turn of the microtask queue.
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
