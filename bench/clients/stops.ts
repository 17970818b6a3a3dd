/**
 * Starts and ends processes at a steady rate while it follows the stops of all of them; prints the times and the count.
 */
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { Caller } from './caller.ts';
import { post } from './connection.ts';
import { followEvents } from './events.ts';
import { report, type StopsResult, type StopsTask, taskOf } from './task.ts';

/** Largest number of concurrent calls. */
const IN_FLIGHT = 32;

const { socket, perSecond, warmUpMs, watchMs, pidsFile } = taskOf<StopsTask>();
const request = post('/v1/handles', { spawn: { argv: ['/bin/true'] } });
const seen = { stopped: Promise.withResolvers<void>(), continued: Promise.withResolvers<void>() };
const webSocket = await followEvents(socket, '?type=stopped&type=continued', (frame) => {
  seen[frame.includes('"event":"stopped"') ? 'stopped' : 'continued'].resolve();
});

/** Waits for one stop and one continue, which shows that the daemon checks for them. */
async function seeOne(): Promise<void> {
  const pid = Number.parseInt(readFileSync(pidsFile, 'utf8'), 10);
  process.kill(pid, 'SIGSTOP');
  await seen.stopped.promise;
  process.kill(pid, 'SIGCONT');
  await seen.continued.promise;
}

/** @returns the number of started processes */
async function keepSpawning(milliseconds: number): Promise<number> {
  const begin = performance.now();
  let started = 0;
  const worker = async (): Promise<void> => {
    using caller = await Caller.open(socket);
    for (;;) {
      const due = begin + (started * 1000) / perSecond;
      if (Math.max(due, performance.now()) >= begin + milliseconds) return;
      started += 1;
      await setTimeout(Math.max(0, due - performance.now()));
      await caller.ask(request, 201);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  return started;
}

const microseconds = (): number => Number(process.hrtime.bigint() / 1000n);

await seeOne();
await keepSpawning(warmUpMs);
const from = microseconds();
const started = await keepSpawning(watchMs);
const result: StopsResult = { from, to: microseconds(), started };
webSocket.terminate();
report(result);
