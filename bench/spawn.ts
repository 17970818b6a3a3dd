import type { SpawnTask } from './clients/task.ts';
import { startWarmDaemon } from './daemon.ts';
import { inTurns, type Measurement } from './measure.ts';

const IN_FLIGHT = 16;

/**
 * Measures processes per second, spawned and collected by the client, beside posix_spawn, epoll on a pidfd and waitid
 * in C.
 */
export const measureSpawn: Measurement = async (scene, floor, { runs, spawns: count, profile }) => {
  await using daemon = await startWarmDaemon(scene, profile);
  const task: SpawnTask = { socket: daemon.socket, count, warmUp: count / 4, inFlight: IN_FLIGHT };
  const rate = {
    what: `spawn to collected, ${IN_FLIGHT} in flight`,
    unit: '/s',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atLeast: 0.6 },
  };
  const perSecond = (nanoseconds: number): number => (count * 1e9) / nanoseconds;
  await inTurns(
    runs,
    async () => void rate.waitd.push(perSecond(await scene.client('spawn', task))),
    async () => void rate.floor.push(perSecond(Number(await scene.run(floor, 'spawn', `${count}`, `${IN_FLIGHT}`)))),
  );
  return [rate];
};
