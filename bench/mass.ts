import type { MassTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { inTurns, type Measurement } from './measure.ts';

/**
 * Kills many children at once with the same program, and measures from the first kill to the last event in a WebSocket
 * client, beside epoll, waitid and close in C. Neither side holds its children while the other is measured.
 */
export const measureMass: Measurement = async (scene, floor, { runs, handles: count, profile }) => {
  const file = scene.stampFile();
  await using daemon = await startDaemon(scene, profile);
  /** @returns milliseconds */
  const killed = async (children: number): Promise<number> => {
    const { pidsFile } = await hold(scene, daemon, floor, children);
    const task: MassTask = { socket: daemon.socket, count: children, killer: floor, file, pidsFile };
    return (await scene.client<MassTask, number>('mass', task)) / 1e6;
  };
  await killed(Math.ceil(count / 5)); // warm-up, so that the code is compiled
  const measure = {
    what: `${count} killed at once, first kill to last event`,
    unit: 'ms',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atMost: 4 },
  };
  await inTurns(
    runs,
    async () => void measure.waitd.push(await killed(count)),
    async () => {
      const nanoseconds = Number(await scene.run(floor, 'mass', `${count}`, file, scene.path('pids')));
      measure.floor.push(nanoseconds / 1e6);
    },
  );
  return [measure];
};
