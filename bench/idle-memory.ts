import { COLLECTABLE, settledMemory } from './clients/memory.ts';
import { startWarmDaemon } from './daemon.ts';
import { hold } from './held.ts';
import type { Measurement } from './measure.ts';

/**
 * Measures the daemon's resident memory per idle live handle, without the kernel's share.
 *
 * Every run has its own daemon. It first spawns and collects some thousands of processes on as many connections, so
 * that compiled code and a grown heap are part of the first reading. Both readings follow a garbage collection.
 */
export const measureIdleMemory: Measurement = async (scene, floor, { runs, handles: count }) => {
  const measure = {
    what: `memory of a live handle, one of ${count}`,
    unit: 'KiB',
    waitd: [] as number[],
    floor: null,
    target: { atMost: 2.5 },
  };
  for (let run = 0; run < runs; run += 1) {
    await using daemon = await startWarmDaemon(scene, undefined, COLLECTABLE);
    const before = await settledMemory(daemon.pid);
    await hold(scene, daemon, floor, count);
    measure.waitd.push(((await settledMemory(daemon.pid)) - before) / count);
  }
  return [measure];
};
