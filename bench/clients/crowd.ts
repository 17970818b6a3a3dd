/**
 * Many subscribers, one of which may have stopped reading, while events arrive at full speed. Runs the client that
 * measures exits beside them; prints its nanoseconds and how the stopped ones were cut off.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Api } from './api.ts';
import { followEvents } from './events.ts';
import { Flood } from './flood.ts';
import { type Cut, cutsOf, Stopped } from './stopped.ts';
import { type ExitTask, report, taskOf } from './task.ts';

export interface CrowdTask {
  socket: string;
  reading: number;
  /** Whether one subscriber has stopped; when it is cut off, the next one takes its place. */
  stopped: boolean;
  exit: ExitTask;
}

export interface CrowdResult {
  nanoseconds: number[];
  cuts: Cut[];
}

const IN_FLIGHT = 2;
const LOOK_EVERY_MS = 200;

const { socket, reading, stopped, exit } = taskOf<CrowdTask>();
using api = new Api(socket);
const cuts: Cut[] = [];
let over = false;

/** Checks for cuts also if none has stopped, because the check costs the daemon time. */
async function watchCuts(): Promise<void> {
  let one = stopped ? await Stopped.open(socket) : null;
  for (let before = await cutsOf(api); !over; ) {
    await setTimeout(LOOK_EVERY_MS);
    const now = await cutsOf(api);
    if (one === null || now === before) continue;
    before = now;
    cuts.push(await one.readOn());
    one = await Stopped.open(socket);
  }
  one?.[Symbol.dispose]();
}

const readers = [];
for (let at = 0; at < reading; at += 1) {
  const reader = await followEvents(socket, '', () => {});
  reader.once('close', (code, reason) => {
    throw new Error(`a reading subscriber was closed: ${code} ${reason}`);
  });
  readers.push(reader);
}
const flood = new Flood(socket, IN_FLIGHT);
const watching = watchCuts();
const script = join(import.meta.dirname, 'exit.ts');
const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(exit)], { maxBuffer: 2 ** 24 });
over = true;
await Promise.all([watching, flood.stop()]);
for (const reader of readers) {
  reader.removeAllListeners('close');
  reader.terminate();
}
const result: CrowdResult = { nanoseconds: JSON.parse(stdout) as number[], cuts };
report(result);
