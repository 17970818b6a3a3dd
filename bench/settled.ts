import type { ExitTask } from './clients/task.ts';
import { startWarmDaemon } from './daemon.ts';
import type { Measurement } from './measure.ts';
import { percentile } from './statistics.ts';

const WARM_UP = 20;

/** The shell ends at once. Its children, each in a shell of its own, end one after another as the daemon's orphans. */
const ORPHANS = 'for pause in 0.002 0.004 0.006; do (sleep $pause; exec "$0" stamp "$1") & done';

/** Measures from the end of the last orphan of a process to `settled` in a WebSocket client: 50 ms at the most. */
export const measureSettled: Measurement = async (scene, floor, { runs, exits, profile }) => {
  const file = scene.stampFile();
  await using daemon = await startWarmDaemon(scene, profile);
  const task: ExitTask = { socket: daemon.socket, count: exits, warmUp: WARM_UP, child: floor, file, orphans: ORPHANS };
  const results: number[][] = [];
  for (let run = 0; run < runs; run += 1) results.push(await scene.client('exit', task));
  return [50, 99, 100].map((percent) => ({
    what: `end of the last of 3 orphans to settled, ${percent === 100 ? 'the longest' : `p${percent}`}`,
    unit: 'us',
    waitd: results.map((nanoseconds) => percentile(nanoseconds, percent) / 1000),
    floor: null,
    target: { atMost: 50_000 },
  }));
};
