import type { ExitTask } from './clients/task.ts';
import { startWarmDaemon } from './daemon.ts';
import { type Held, hold } from './held.ts';
import { inTurns, type Measure, type Measurement, type Plan } from './measure.ts';
import type { Scene } from './scene.ts';
import { percentile } from './statistics.ts';

const WARM_UP = 100;

/** Measures from a child's exit to the event in a WebSocket client, beside epoll on a pidfd and waitid in C. */
export const measureExit: Measurement = async (scene, floor, plan) => {
  const { waitd, floor: floors } = await exits(scene, floor, plan, 0);
  const measure = (percent: number, atMost: number): Measure => ({
    what: `exit to WebSocket event, p${percent}`,
    unit: 'us',
    waitd: waitd.map((us) => percentile(us, percent)),
    floor: floors.map((us) => percentile(us, percent)),
    target: { atMost },
  });
  return [{ ...measure(50, 2.5), samples: { waitd: waitd.flat(), floor: floors.flat() } }, measure(99, 3)];
};

/**
 * Measures the same while many other children live, with the daemon's handles on them or in the floor's epoll. Neither
 * side holds its children while the other is measured.
 */
export const measureExitAmongOthers: Measurement = async (scene, floor, plan) => {
  const { waitd, floor: floors } = await exits(scene, floor, plan, plan.handles);
  return [
    {
      what: `exit to WebSocket event among ${plan.handles} others, p50`,
      unit: 'us',
      waitd: waitd.map((us) => percentile(us, 50)),
      floor: floors.map((us) => percentile(us, 50)),
      target: { atMost: 2.5 },
      samples: { waitd: waitd.flat(), floor: floors.flat() },
    },
  ];
};

/** @returns the microseconds of each exit, for each run */
async function exits(
  scene: Scene,
  floor: string,
  { runs, exits: count, profile }: Plan,
  others: number,
): Promise<{ waitd: number[][]; floor: number[][] }> {
  const file = scene.stampFile();
  await using daemon = await startWarmDaemon(scene, profile);
  const task: ExitTask = { socket: daemon.socket, count, warmUp: WARM_UP, child: floor, file };
  const microseconds = (nanoseconds: number[]): number[] => nanoseconds.map((one) => one / 1000);
  const results = { waitd: [] as number[][], floor: [] as number[][] };
  await inTurns(
    runs,
    async () => {
      const held: Held | null = others === 0 ? null : await hold(scene, daemon, floor, others);
      results.waitd.push(microseconds(await scene.client('exit', task)));
      await held?.end();
    },
    async () => {
      const lines = await scene.run(floor, 'exit', `${count}`, file, `${others}`);
      results.floor.push(microseconds(lines.trim().split('\n').map(Number)));
    },
  );
  return results;
}
