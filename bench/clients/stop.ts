/**
 * Subscribers that have stopped reading, with events at full speed, until all are cut off; prints how they were cut
 * off.
 */
import { setTimeout } from 'node:timers/promises';
import { Api } from './api.ts';
import { Flood } from './flood.ts';
import { cutsOf, Stopped } from './stopped.ts';
import { report, taskOf } from './task.ts';

export interface StopTask {
  socket: string;
  stopped: number;
}

const IN_FLIGHT = 4;
const LOOK_EVERY_MS = 20;

/** Time limit; exceeding it is a fault. */
const GIVE_UP_MS = 60_000;

const { socket, stopped } = taskOf<StopTask>();
using api = new Api(socket);
const all: Stopped[] = [];
for (let at = 0; at < stopped; at += 1) all.push(await Stopped.open(socket));
const before = await cutsOf(api);
const flood = new Flood(socket, IN_FLIGHT);
const end = performance.now() + GIVE_UP_MS;
while ((await cutsOf(api)) < before + stopped) {
  if (performance.now() > end) throw new Error(`not all were cut off within ${GIVE_UP_MS} ms`);
  await setTimeout(LOOK_EVERY_MS);
}
// They have a second to read the close frame, and on few cores nothing else should run in that time.
await flood.stop();
report(await Promise.all(all.map((one) => one.readOn())));
