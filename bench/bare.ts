/** The floor of a call: one Fastify route that answers what it is told, bytes that are ready made. */
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
  // Through a serializer, as Fastify would add a charset to a text that it is sent.
  reply
    .code(status)
    .headers(headers)
    .serializer(() => body)
    .send({});
});
await app.listen({ path: socket });
report({ msg: 'ready' });
