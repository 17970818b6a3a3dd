import { execFileSync } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { Caller } from './clients/caller.ts';
import { get } from './clients/connection.ts';
import { BUILT, daemonCommand } from './daemon.ts';
import { inTurns, type Measure, type Measurement, type Plan } from './measure.ts';
import type { Scene } from './scene.ts';

/** Interval between two attempts. */
const BETWEEN_MS = 1;
const LONGEST_MS = 30_000;

/**
 * Measures from the start of the process, with an empty state directory, to the first answer of /livez, minus the run
 * time of `node -e 0`. It covers the program of the package and the image, and the sources as `npm start` runs them
 * with Node.js type stripping. The files are in the page cache.
 */
export const measureStart: Measurement = async (scene, _floor, plan) => {
  execFileSync('npm', ['run', '--silent', 'build'], { stdio: ['ignore', 'ignore', 'inherit'] });
  return [
    await startOf(scene, plan, 'start to the first answer, less node itself', BUILT),
    await startOf(scene, plan, 'the same from the sources'),
  ];
};

async function startOf(scene: Scene, { runs }: Plan, what: string, main?: string): Promise<Measure> {
  const starts: number[] = [];
  const nodes: number[] = [];
  await firstAnswer(scene, main);
  await inTurns(
    runs,
    async () => void starts.push(await firstAnswer(scene, main)),
    async () => void nodes.push(await nodeAlone(scene)),
  );
  const waitd = starts.map((ms, run) => ms - nodes[run]!);
  return { what, unit: 'ms', waitd, floor: null, target: { atMost: 350 } };
}

/** @returns milliseconds */
async function firstAnswer(scene: Scene, main?: string): Promise<number> {
  const { socket, args } = daemonCommand(scene, undefined, main);
  const begin = performance.now();
  const starting = scene.serve(socket, ...args);
  const answered = async (): Promise<number> => {
    while (performance.now() - begin < LONGEST_MS) {
      using caller = await Caller.open(socket).catch(() => null); // it does not listen yet
      if (caller === null) await setTimeout(BETWEEN_MS);
      else {
        await caller.ask(get('/livez'), 200);
        return performance.now() - begin;
      }
    }
    throw new Error('/livez does not answer');
  };
  const [ms, daemon] = await Promise.all([answered(), starting]);
  await daemon[Symbol.asyncDispose]();
  return ms;
}

/** @returns milliseconds */
async function nodeAlone(scene: Scene): Promise<number> {
  const begin = performance.now();
  await scene.run(process.execPath, '-e', '0');
  return performance.now() - begin;
}
