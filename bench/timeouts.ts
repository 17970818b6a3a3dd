import { COLLECTABLE, settledMemory } from './clients/memory.ts';
import type { ExitTask } from './clients/task.ts';
import { startWarmDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { inTurns, type Measurement } from './measure.ts';
import { percentile } from './statistics.ts';

const WARM_UP = 100;
const TIMEOUT = { timeout: { afterMs: 3_600_000 } };

/**
 * Measures what timeouts cost: the memory of a live handle, and an exit among many others, where each process has a timeout of an hour.
 * The floor is the same daemon without timeouts.
 */
export const measureTimeouts: Measurement = async (scene, floor, { runs, timeouts: count, exits }) => {
  const memory = {
    what: `memory of a live handle with a timeout, one of ${count}`,
    unit: 'KiB',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost: 1.2 },
  };
  const exit = {
    what: `exit to WebSocket event among ${count} timeouts, p50`,
    unit: 'us',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost: 1.1 },
  };
  const file = scene.stampFile();
  const measure = async (spawn: object): Promise<{ kib: number; us: number }> => {
    await using daemon = await startWarmDaemon(scene, undefined, COLLECTABLE);
    const before = await settledMemory(daemon.pid);
    await hold(scene, daemon, floor, count, spawn);
    const kib = ((await settledMemory(daemon.pid)) - before) / count;
    const task: ExitTask = { socket: daemon.socket, count: exits / 2, warmUp: WARM_UP, child: floor, file, spawn };
    return { kib, us: percentile(await scene.client<ExitTask, number[]>('exit', task), 50) / 1000 };
  };
  await inTurns(
    runs,
    async () => {
      const { kib, us } = await measure(TIMEOUT);
      memory.waitd.push(kib);
      exit.waitd.push(us);
    },
    async () => {
      const { kib, us } = await measure({});
      memory.floor.push(kib);
      exit.floor.push(us);
    },
  );
  return [memory, exit];
};
