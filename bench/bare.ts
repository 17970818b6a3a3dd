/** The floor of a call: one Fastify route that answers with the bytes from its arguments. */
import fastify from 'fastify';
import { KEEP_ALIVE_TIMEOUT_MS } from '../src/http/limits.ts';
import { report, taskOf } from './clients/task.ts';

export interface BareTask {
  socket: string;
  route: string;
  status: number;
  headers: Record<string, string>;
  body: string;
}

const { socket, route, status, headers, body } = taskOf<BareTask>();
const app = fastify({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS });
app.post(route, (_request, reply) => {
  // A serializer, because Fastify adds a charset to a plain string.
  reply
    .code(status)
    .headers(headers)
    .serializer(() => body)
    .send({});
});
await app.listen({ path: socket });
report({ msg: 'ready' });
