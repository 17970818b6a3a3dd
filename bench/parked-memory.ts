import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BareParkedTask } from './bare-parked.ts';
import { COLLECTABLE } from './clients/memory.ts';
import type { ParkTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { inTurns, type Measurement, Skipped } from './measure.ts';
import type { Scene, Server } from './scene.ts';

/** The number of requests that are parked and dropped beforehand. */
const WARM_UP = 2000;

/** Descriptors that the daemon needs for itself and reserves for probes. */
const RESERVED = 250;

/**
 * Measures the daemon's resident memory per parked `waitid`, its connection included, with one blocking handle per
 * call, beside a bare Fastify route that never answers the same requests. Each run has its own servers, warmed up with
 * requests that are parked and dropped. The handles exist before the first reading, and both readings follow a garbage
 * collection.
 */
export const measureParkedMemory: Measurement = async (scene, floor, { runs, handles: count }) => {
  const descriptors = descriptorLimit();
  if (descriptors < 2 * count + RESERVED)
    throw new Skipped(`${count} handles and as many connections need more descriptors than ${descriptors}`);
  const measure = {
    what: `memory of a parked waitid, one of ${count}`,
    unit: 'KiB',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost: 1.3 },
  };
  const park = ({ socket, pid }: Server, ids: string[]): Promise<number> => {
    const pathsFile = scene.path('paths');
    writeFileSync(pathsFile, JSON.stringify(ids.map((id) => `/v1/handles/${id}/waitid`)));
    const task: ParkTask = { socket, pid, pathsFile, warmUp: WARM_UP };
    return scene.client('park', task);
  };
  const waitd = async (): Promise<void> => {
    await using daemon = await startDaemon(scene, undefined, COLLECTABLE);
    const { ids } = await hold(scene, daemon, floor, count);
    measure.waitd.push(await park(daemon, ids));
  };
  const bare = async (): Promise<void> => {
    await using server = await startBare(scene);
    measure.floor.push(await park(server, Array.from({ length: count }, idLike)));
  };
  await inTurns(runs, waitd, bare);
  return [measure];
};

/** Returns an id as long as a handle's. */
function idLike(): string {
  return `h_${randomBytes(18).toString('base64url')}`;
}

function startBare(scene: Scene): Promise<Server> {
  const task: BareParkedTask = { socket: scene.path('bare.sock'), route: '/v1/handles/:id/waitid' };
  return scene.serve(task.socket, ...COLLECTABLE, join(import.meta.dirname, 'bare-parked.ts'), JSON.stringify(task));
}

/** The soft limit, which Node.js has raised to the hard limit at its start. */
function descriptorLimit(): number {
  const [, limit] = /^Max open files +(\w+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))!;
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit);
}
