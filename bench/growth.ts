import { readFileSync } from 'node:fs';
import { holdSomething } from './again.ts';
import { ask, get, post } from './clients/connection.ts';
import type { LoadDistribution } from './clients/load.ts';
import type { ExitTask, LoadTask } from './clients/task.ts';
import { daemonCommand } from './daemon.ts';
import { hold } from './held.ts';
import { type Measure, type Measurement, type Plan, Skipped } from './measure.ts';
import type { Scene } from './scene.ts';
import { percentile } from './statistics.ts';

const PAGE = 100;
const WARM_UP = 30;

/** Upper bound of the memory of an idle child, and the reserve for the rest of the machine, in KiB. */
const CHILD_KIB = 256;
const SPARE_KIB = 1024 * 1024;
const SPARE_PIDS = 1000;

/** Largest ratio that counts as flat; a larger one means that the cost grows with the number of handles. */
const FLAT = { atMost: 1.25 };

/** Costs with one number of live handles, in microseconds: the median of each run. */
interface Step {
  count: number;
  exit: number[];
  exitFloor: number[];
  again: number[];
  /** `null` if the handles do not fill the pages. */
  pages: { first: number[]; middle: number[] } | null;
}

/**
 * Measures an exit, a `waitid` and a page of the list at increasing numbers of live handles. The exit is compared with
 * C at as many pidfds. The result is the ratio of the cost with the most handles to the cost with the fewest.
 */
export const measureGrowth: Measurement = async (scene, floor, plan) => {
  const { socket, args } = daemonCommand(scene, plan.profile);
  // Ended handles expire at once, so that pages contain live handles only.
  await using daemon = await scene.serve(socket, ...args, '--keep-collected', '1s', '--keep-uncollected', '1s');
  const nonblocking = await holdSomething(scene, socket);
  const stamp = scene.stampFile();
  const steps: Step[] = [];
  let lacks: string | undefined;
  for (const count of plan.growth) {
    const held = steps.at(-1)?.count ?? 0;
    try {
      requireRoom(count, held);
      await hold(scene, daemon, floor, count - held);
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      lacks = `not with ${count} handles or more: ${error.message}`;
      break;
    }
    steps.push(await stepOf(scene, { socket, floor, stamp, again: nonblocking.id, plan, count }));
  }
  scene.end(nonblocking.process.pid);
  if (steps.length < 2) throw new Skipped(lacks ?? 'fewer than two steps');
  const [first, ...others] = measuresOf(steps);
  return [{ ...first!, ...(lacks !== undefined && { lacks }) }, ...others];
};

/**
 * Checks that memory and pids suffice, because the children of waitd and of the floor live at the same time.
 * @param held the number of handles that waitd already holds
 * @throws {Skipped} if memory or pids do not suffice
 */
function requireRoom(count: number, held: number): void {
  const more = 2 * count - held;
  const available = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  if (available < more * CHILD_KIB + SPARE_KIB) throw new Skipped(`${available} KiB of memory are available`);
  const used = Number(/\d+\/(\d+)/.exec(readFileSync('/proc/loadavg', 'utf8'))?.[1]);
  const pids = Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8'));
  if (pids < used + more + SPARE_PIDS) throw new Skipped(`${used} of ${pids} pids are in use`);
}

interface StepTask {
  socket: string;
  floor: string;
  /** The file into which children write the time. */
  stamp: string;
  /** The id of a nonblocking handle. */
  again: string;
  plan: Plan;
  count: number;
}

async function stepOf(scene: Scene, { socket, floor, stamp, again, plan, count }: StepTask): Promise<Step> {
  const { runs, loadMs, warmUpMs } = plan;
  const call = async (request: string, status: number): Promise<number> => {
    const load = { socket, request, status, connections: 1, warmUpMs: warmUpMs / 3, durationMs: loadMs / 4 };
    return (await scene.client<LoadTask, LoadDistribution>('load', load)).p50Us;
  };
  const exits = Math.ceil(plan.exits / 10);
  const exit: ExitTask = { socket, count: exits, warmUp: WARM_UP, child: floor, file: stamp };
  const pages = count < 2 * PAGE ? null : { first: [] as number[], middle: [] as number[] };
  const step: Step = { count, exit: [], exitFloor: [], again: [], pages };
  const middle = pages && (await middleCursor(socket, count));
  for (let run = 0; run < runs; run += 1) {
    step.again.push(await call(post(`/v1/handles/${again}/waitid`), 409));
    pages?.first.push(await call(pageOf(), 200));
    pages?.middle.push(await call(pageOf(middle), 200));
  }
  for (let run = 0; run < runs; run += 1)
    step.exit.push(percentile(await scene.client<ExitTask, number[]>('exit', exit), 50) / 1000);
  // One call for all exits, because the floor starts all its children anew on each call.
  const lines = await scene.run(floor, 'exit', `${runs * exits}`, stamp, `${count}`);
  const floors = lines.trim().split('\n').map(Number);
  for (let run = 0; run < runs; run += 1)
    step.exitFloor.push(percentile(floors.slice(run * exits, (run + 1) * exits), 50) / 1000);
  return step;
}

function pageOf(cursor?: string | null): string {
  return get(`/v1/handles?limit=${PAGE}${cursor == null ? '' : `&cursor=${cursor}`}`);
}

/** Returns the cursor of the page that has as many handles behind it as before it. */
async function middleCursor(socket: string, count: number): Promise<string> {
  let cursor: string | null = null;
  for (let page = 0; page < Math.floor(count / 2 / PAGE); page += 1) {
    const { body } = await ask(socket, pageOf(cursor));
    cursor = (JSON.parse(body) as { next: string | null }).next;
  }
  const { body } = await ask(socket, pageOf(cursor));
  const { handles } = JSON.parse(body) as { handles: unknown[] };
  if (handles.length !== PAGE) throw new Error(`a page of ${handles.length} handles, not of ${PAGE}`);
  return cursor!;
}

function measuresOf(steps: readonly Step[]): Measure[] {
  const measure = (title: string, waitd: Costs, floor: Costs | null): Measure[] => {
    const waitdGrowth = growthOf(waitd);
    if (waitdGrowth === null) return [];
    const points = waitd.map(({ count, costs }) => {
      const beside = floor?.find((one) => one.count === count);
      return { count, waitd: percentile(costs, 50), floor: beside === undefined ? null : percentile(beside.costs, 50) };
    });
    return [
      {
        what: `${title}, ${points.at(-1)!.count} live handles against ${points[0]!.count}`,
        unit: 'times',
        waitd: waitdGrowth,
        floor: floor && growthOf(floor),
        target: FLAT,
        growth: { title, of: 'live handles', unit: 'us', points },
      },
    ];
  };
  const costs = (of: (step: Step) => number[] | undefined): Costs =>
    steps.flatMap((step) => {
      const values = of(step);
      return values === undefined ? [] : [{ count: step.count, costs: values }];
    });
  return [
    ...measure(
      'exit to WebSocket event',
      costs(({ exit }) => exit),
      costs(({ exitFloor }) => exitFloor),
    ),
    ...measure(
      'waitid to EAGAIN',
      costs(({ again }) => again),
      null,
    ),
    ...measure(
      `first page of ${PAGE} handles`,
      costs(({ pages }) => pages?.first),
      null,
    ),
    ...measure(
      `middle page of ${PAGE} handles`,
      costs(({ pages }) => pages?.middle),
      null,
    ),
  ];
}

/** The values of each run, with one number of handles. */
type Costs = { count: number; costs: number[] }[];

/**
 * @returns for each run, the cost at the last step divided by the cost at the first; `null` with fewer than two steps
 */
function growthOf(steps: Costs): number[] | null {
  if (steps.length < 2) return null;
  return steps.at(-1)!.costs.map((cost, run) => cost / steps[0]!.costs[run]!);
}
