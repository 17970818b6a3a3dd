import type { Readable } from 'node:stream';
import * as contract from '../schemas/operations/input.ts';
import { InputOperations } from '../src/api/input.ts';
import type { Daemon } from '../src/daemon.ts';
import type { App } from '../src/http/app-type.ts';
import { leaveUnread, lengthOf } from '../src/http/bodies.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import { sourceOf, sourceOfStream } from '../src/input/byte-source.ts';

/** Registers the routes of standard input and of terminals. */
export function inputRoutes(app: App, daemon: Daemon): void {
  const operations = new InputOperations(daemon);

  app.post('/v1/handles/:id/stdin', {
    schema: contract.writeStdin,
    config: { operation: operations.write, bytes: true },
    handler: async (request, reply) => {
      const { timeoutMs, flags, eof } = request.query;
      const body = (request.body ?? Buffer.alloc(0)) as Buffer | Readable;
      const source = Buffer.isBuffer(body) ? sourceOf(body) : sourceOfStream(body, lengthOf(request.raw));
      const answer = await operations.write.run(callOf(request, reply), {
        id: request.params.id,
        source,
        timeoutMs,
        dontWait: flags !== undefined,
        eof: eof === 'true',
      });
      if (answer === 'aborted') return reply.hijack();
      leaveUnread(request.raw, reply);
      return reply.send(answer);
    },
  });

  app.put('/v1/handles/:id/tty', {
    schema: contract.resizeTerminal,
    config: { operation: operations.resize },
    handler: async (request, reply) => {
      await operations.resize.run(callOf(request, reply), { id: request.params.id, ...request.body });
      return reply.code(204).send(null);
    },
  });
}
