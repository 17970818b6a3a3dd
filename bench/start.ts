import { setTimeout } from 'node:timers/promises';
import { Caller } from './clients/caller.ts';
import { get } from './clients/connection.ts';
import { daemonCommand } from './daemon.ts';
import { inTurns, type Measurement } from './measure.ts';
import type { Scene } from './scene.ts';

/** How soon it is asked again. */
const BETWEEN_MS = 1;
const LONGEST_MS = 30_000;

/**
 * From the start of the process that `npm start` starts (node on the sources, whose types it strips), with an empty state
 * directory, to the first answer of /livez; less what `node -e 0` takes from its start to its end. The files have been read before.
 */
export const measureStart: Measurement = async (scene, _floor, { runs }) => {
  const starts: number[] = [];
  const nodes: number[] = [];
  await firstAnswer(scene);
  await inTurns(
    runs,
    async () => void starts.push(await firstAnswer(scene)),
    async () => void nodes.push(await nodeAlone(scene)),
  );
  return [
    {
      what: 'start to the first answer, less node itself',
      unit: 'ms',
      waitd: starts.map((ms, run) => ms - nodes[run]!),
      floor: null,
      target: { atMost: 350 },
    },
  ];
};

/** @returns milliseconds */
async function firstAnswer(scene: Scene): Promise<number> {
  const { socket, args } = daemonCommand(scene);
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
