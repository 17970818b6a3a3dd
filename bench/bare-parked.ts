/** The floor of a parked call: one Fastify route that never answers. */
import fastify from 'fastify';
import { KEEP_ALIVE_TIMEOUT_MS } from '../src/http/limits.ts';
import { report, taskOf } from './clients/task.ts';

export interface BareParkedTask {
  socket: string;
  route: string;
}

const { socket, route } = taskOf<BareParkedTask>();
const app = fastify({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS });
app.post(route, () => new Promise(() => {}));
await app.listen({ path: socket });
report({ msg: 'ready' });
