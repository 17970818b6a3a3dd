import type { StopsResult, StopsTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { type Measurement, Skipped } from './measure.ts';
import { shareOf } from './share.ts';

const PER_SECOND = 500;

/** Largest accepted deviation from the intended rate. */
const RATE_TOLERANCE = 0.05;

/**
 * Measures the share of one core that checking for stops takes. A client follows the stops of many handles while other
 * processes start and end at a steady rate, and every end makes the daemon check. The CPU profile of the daemon adds a
 * small cost of its own.
 */
export const measureStops: Measurement = async (scene, floor, plan) => {
  const { runs, handles: count, warmUpMs, watchMs, profile = scene.path('stops.cpuprofile') } = plan;
  const results: StopsResult[] = [];
  {
    await using daemon = await startDaemon(scene, profile);
    const { pidsFile } = await hold(scene, daemon, floor, count);
    const task: StopsTask = { socket: daemon.socket, pidsFile, perSecond: PER_SECOND, warmUpMs, watchMs };
    for (let run = 0; run < runs; run += 1) results.push(await scene.client('stops', task));
  }
  const rates = results.map(({ from, to, started }) => (started * 1e6) / (to - from));
  const slowest = Math.min(...rates);
  if (slowest < PER_SECOND * (1 - RATE_TOLERANCE))
    throw new Skipped(`${PER_SECOND} exits per second were intended, ${slowest.toFixed(0)} reached`);
  return [
    {
      what: `looking for stops, ${count} handles, ${PER_SECOND} exits/s: share of a core`,
      unit: '%',
      waitd: shareOf(profile, 'drainPauses', results),
      floor: null,
      target: { atMost: 10 },
    },
  ];
};
