import { join } from 'node:path';
import type { BareTask } from './bare.ts';
import { type Answer, ask, post } from './clients/connection.ts';
import type { LoadDistribution } from './clients/load.ts';
import type { LoadTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { inTurns, type Measurement } from './measure.ts';
import type { Scene, Server } from './scene.ts';

const CONNECTIONS = 32;

/** Measures a `waitid` that answers EAGAIN beside a bare Fastify route that answers the same bytes. */
export const measureAgain: Measurement = async (scene, _floor, { runs, loadMs, warmUpMs, profile }) => {
  await using daemon = await startDaemon(scene, profile);
  const held = await holdSomething(scene, daemon.socket);
  const request = post(`/v1/handles/${held.id}/waitid`);
  const answer = await ask(daemon.socket, request);
  if (answer.status !== 409) throw new Error(`409 expected: ${answer.head} ${answer.body}`);
  await using bare = await startBare(scene, answer);
  requireSame(answer, await ask(bare.socket, request));

  const rate = {
    what: `waitid to EAGAIN, ${CONNECTIONS} connections`,
    unit: '/s',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atLeast: 0.85 },
  };
  const latency = {
    what: 'waitid to EAGAIN, 1 connection, p50',
    unit: 'us',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost: 1.25 },
    samples: { waitd: [] as number[], floor: [] as number[] },
  };
  const load = ({ socket }: Server, connections: number): Promise<LoadDistribution> => {
    const task: LoadTask = { socket, request, status: answer.status, connections, warmUpMs, durationMs: loadMs };
    return scene.client('load', task);
  };
  const side = (name: 'waitd' | 'floor', server: Server) => async (): Promise<void> => {
    rate[name].push((await load(server, CONNECTIONS)).perSecond);
    const { p50Us, samplesUs } = await load(server, 1);
    latency[name].push(p50Us);
    latency.samples[name].push(...samplesUs);
  };
  await inTurns(runs, side('waitd', daemon), side('floor', bare));
  scene.end(held.process.pid);
  return [rate, latency];
};

/** Returns a nonblocking handle on a process that outlives the measurement. */
export async function holdSomething(scene: Scene, socket: string): Promise<{ id: string; process: { pid: number } }> {
  const spawn = { argv: ['sleep', '3600'] };
  const { status, head, body } = await ask(socket, post('/v1/handles', { spawn, nonblocking: true }));
  if (status !== 201) throw new Error(`not spawned: ${head} ${body}`);
  const handle = JSON.parse(body) as { id: string; process: { pid: number } };
  scene.endWithMe(handle.process.pid);
  return handle;
}

/** Headers that Node.js adds to every answer. */
const ownHeaders = new Set(['date', 'connection', 'keep-alive', 'content-length']);

function startBare(scene: Scene, { status, head, body }: Answer): Promise<Server> {
  const lines = head.split('\r\n').slice(1);
  const headers = lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)] as const);
  const task: BareTask = {
    socket: scene.path('bare.sock'),
    route: '/v1/handles/:id/waitid',
    status,
    headers: Object.fromEntries(headers.filter(([name]) => !ownHeaders.has(name.toLowerCase()))),
    body,
  };
  return scene.serve(task.socket, join(import.meta.dirname, 'bare.ts'), JSON.stringify(task));
}

function requireSame(waitd: Answer, bare: Answer): void {
  const text = ({ head, body }: Answer): string => `${head.replace(/^date: .*$/im, '')}\r\n\r\n${body}`;
  if (text(waitd) !== text(bare)) throw new Error(`not the same bytes:\n${text(waitd)}\n\n${text(bare)}`);
}
