import { setTimeout } from 'node:timers/promises';
import type { CrowdResult, CrowdTask } from './clients/crowd.ts';
import type { StopTask } from './clients/stop.ts';
import type { Cut } from './clients/stopped.ts';
import type { ExitTask } from './clients/task.ts';
import { daemonCommand, startDaemon } from './daemon.ts';
import { inTurns, type Measure, type Measurement } from './measure.ts';
import type { Scene, Server } from './scene.ts';
import { lookAt } from './soak/sample.ts';
import { percentile } from './statistics.ts';

/** The number of subscribers, the measuring one included. */
const SUBSCRIBERS = 200;
const WARM_UP = 10;

/** Enough subscribers for the cost of one more to stand out from other memory use. */
const STOPPED = 20;
const BUFFER_KIB = 1024;
const LOOK_EVERY_MS = 20;

/** Measures what one subscriber that does not read costs the others and the daemon, and how it is cut off. */
export const measureBackpressure: Measurement = async (scene, floor, plan) => {
  const delays = await delaysOfOthers(scene, floor, plan.runs, Math.ceil(plan.exits / 5), plan.profile);
  const kept = await keptForStopped(scene, plan.runs);
  const cuts = [...delays.cuts, ...kept.cuts];
  const told = cuts.filter((cut) => cut.told);
  const alone = (what: string, unit: string, waitd: number[], target: Measure['target']): Measure => ({
    what,
    unit,
    waitd,
    floor: null,
    target,
  });
  return [
    ...delays.measures,
    alone(`memory for one more of ${STOPPED} that have stopped`, 'KiB', kept.kib, { atMost: 2 * BUFFER_KIB }),
    alone(
      `of ${cuts.length} cut off, told so with 1013 and where to resume`,
      '%',
      [(100 * told.length) / cuts.length],
      {
        atLeast: 100,
      },
    ),
    alone(
      'events that one lost that has resumed',
      '',
      cuts.map(({ lost }) => lost),
      { atMost: 0 },
    ),
  ];
};

/**
 * Measures from exits to events in one of many subscribers while another has stopped, beside the same with none
 * stopped.
 */
async function delaysOfOthers(
  scene: Scene,
  floor: string,
  runs: number,
  count: number,
  profile: string | undefined,
): Promise<{ measures: Measure[]; cuts: Cut[] }> {
  await using daemon = await startDaemon(scene, profile);
  const { socket } = daemon;
  const exit: ExitTask = { socket, count, warmUp: WARM_UP, child: floor, file: scene.stampFile() };
  const cuts: Cut[] = [];
  const crowd = async (stopped: boolean): Promise<number[]> => {
    const task: CrowdTask = { socket, reading: SUBSCRIBERS - (stopped ? 2 : 1), stopped, exit };
    const result = await scene.client<CrowdTask, CrowdResult>('crowd', task);
    cuts.push(...result.cuts);
    return result.nanoseconds.map((one) => one / 1000);
  };
  const runsOf = { waitd: [] as number[][], floor: [] as number[][] };
  await inTurns(
    runs,
    async () => void runsOf.waitd.push(await crowd(true)),
    async () => void runsOf.floor.push(await crowd(false)),
  );
  const measure = (percent: number, atMost: number): Measure => ({
    what: `exit to event, 1 of ${SUBSCRIBERS} subscribers stopped, beside none, p${percent}`,
    unit: 'us',
    waitd: runsOf.waitd.map((us) => percentile(us, percent)),
    floor: runsOf.floor.map((us) => percentile(us, percent)),
    target: { atMost },
  });
  return { measures: [measure(50, 1.25), measure(99, 1.5)], cuts };
}

/**
 * Measures the daemon's peak memory per additional stopped subscriber until they are cut off. The same events are
 * buffered for many subscribers and for one. Each measurement has its own daemon.
 */
async function keptForStopped(scene: Scene, runs: number): Promise<{ kib: number[]; cuts: Cut[] }> {
  const cuts: Cut[] = [];
  const greatest = async (stopped: number): Promise<number> => {
    const { socket, args } = daemonCommand(scene);
    await using daemon = await scene.serve(socket, ...args, '--socket-buffer', `${BUFFER_KIB * 1024}`);
    const work = scene.client<StopTask, Cut[]>('stop', { socket, stopped });
    const mib = await greatestWhile(daemon, work);
    cuts.push(...(await work));
    return mib;
  };
  const mib = { many: [] as number[], one: [] as number[] };
  await inTurns(
    runs,
    async () => void mib.many.push(await greatest(STOPPED)),
    async () => void mib.one.push(await greatest(1)),
  );
  return { kib: mib.many.map((many, run) => ((many - mib.one[run]!) * 1024) / (STOPPED - 1)), cuts };
}

/** @returns the peak resident memory in MiB */
async function greatestWhile({ pid }: Server, work: Promise<unknown>): Promise<number> {
  let over = false;
  const end = work.finally(() => {
    over = true;
  });
  let greatest = 0;
  while (!over) {
    greatest = Math.max(greatest, lookAt(pid).residentMiB);
    await Promise.race([end, setTimeout(LOOK_EVERY_MS)]);
  }
  return greatest;
}
