import * as contract from '../schemas/operations/problems.ts';
import { isProblemErrno, Problem } from '../src/errors/problem.ts';
import type { App } from '../src/http/app-type.ts';
import { ProblemPages } from '../src/http/problem-pages.ts';

/** Registers the route of a problem's `type`, which describes its cause and cure. It is public, so it needs no credentials. */
export function problemRoutes(app: App): void {
  const pages = new ProblemPages();

  app.get('/problems/:errno', {
    config: { open: true },
    schema: contract.getProblem,
    handler: (request, reply) => {
      const { errno } = request.params;
      if (!isProblemErrno(errno))
        throw new Problem('EPROTO', 'No problem has this errno. The schema Problem in /openapi.json lists them all.', {
          status: 404,
        });
      reply.type('text/markdown; charset=utf-8').serializer(String).send(pages.of(errno));
    },
  });
}
