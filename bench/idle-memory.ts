import { COLLECTABLE, settledMemory } from './clients/memory.ts';
import { startWarmDaemon } from './daemon.ts';
import { hold } from './held.ts';
import type { Measurement } from './measure.ts';

/**
 * What a live handle takes of the daemon's resident memory while nothing happens to it; the kernel's share is not in it.
 *
 * Every run has a daemon of its own. It first spawns and collects some thousands of processes, on as many connections: what the
 * work takes, compiled code and a grown heap, is there before the first reading. Both readings come after a garbage collection.
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
