import { writeFileSync } from 'node:fs';
import type { ExitTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { inTurns, type Measurement } from './measure.ts';
import { percentile } from './statistics.ts';

const WARM_UP = 100;

/** From a child's end to the event in a WebSocket client; beside epoll on a pidfd and waitid in C. */
export const measureExit: Measurement = async (scene, floor, { runs, exits: count, profile }) => {
  const file = scene.path('stamp');
  writeFileSync(file, Buffer.alloc(8));
  await using daemon = await startDaemon(scene, profile);
  const task: ExitTask = { socket: daemon.socket, count, warmUp: WARM_UP, child: floor, file };
  const measure = (percent: number, atMost: number) => ({
    what: `exit to WebSocket event, p${percent}`,
    unit: 'us',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost },
    percent,
  });
  const measures = [measure(50, 2.5), measure(99, 3)];
  const note = (side: 'waitd' | 'floor', nanoseconds: number[]): void => {
    for (const one of measures) one[side].push(percentile(nanoseconds, one.percent) / 1000);
  };
  await inTurns(
    runs,
    async () => note('waitd', await scene.client('exit', task)),
    async () => note('floor', (await scene.run(floor, 'exit', `${count}`, file)).trim().split('\n').map(Number)),
  );
  return measures;
};
