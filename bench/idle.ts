import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { type Measurement, Skipped } from './measure.ts';
import type { Scene } from './scene.ts';

/** Until strace has stopped every thread once and let it go on. */
const ATTACH_MS = 1000;

/** How often it is tried: V8's memory reducer looks every 8 s whether there is garbage, for some minutes after the last call. */
const TRIES = 40;

/**
 * System calls of a daemon, all of its threads, that holds many handles while nobody calls; by strace. It has come to rest when there
 * was none for as long before.
 */
export const measureIdle: Measurement = async (scene, floor, { runs, handles: count, watchMs, profile }) => {
  await using daemon = await startDaemon(scene, profile);
  await hold(scene, daemon, floor, count);
  const measure = {
    what: `system calls in ${watchMs / 1000} s, ${count} handles held, nobody calling`,
    unit: '',
    waitd: [] as number[],
    floor: null,
    target: { atMost: 0 },
  };
  for (let tries = 0; tries < TRIES; tries += 1) if ((await callsOf(scene, daemon.pid, watchMs)) === 0) break;
  for (let run = 0; run < runs; run += 1) measure.waitd.push(await callsOf(scene, daemon.pid, watchMs));
  return [measure];
};

/** @throws {Skipped} where strace is missing, or may not trace */
async function callsOf(scene: Scene, pid: number, watchMs: number): Promise<number> {
  const file = scene.path('strace');
  const strace = spawn('strace', ['-f', '-qq', '-ttt', '-o', file, '-p', `${pid}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let refusal = '';
  strace.stderr.setEncoding('utf8').on('data', (text: string) => {
    refusal += text;
  });
  const ended = once(strace, 'close').catch((error: Error) => {
    refusal = error.message;
  });
  const begin = Date.now() + ATTACH_MS;
  await Promise.race([ended, setTimeout(ATTACH_MS + watchMs)]);
  if (refusal !== '') throw new Skipped(refusal.trim());
  strace.kill('SIGINT'); // and it lets go of the daemon
  await ended;
  return callsBetween(readFileSync(file, 'utf8'), begin / 1000, (begin + watchMs) / 1000);
}

/** How many calls a trace shows that began between two times, in seconds; one that is interrupted has a second line. */
function callsBetween(trace: string, from: number, to: number): number {
  const calls = trace.matchAll(/^\d+ +(\d+\.\d+) (?!<\.\.\.|---|\+\+\+)/gm);
  return calls
    .map(([, at]) => Number(at))
    .filter((at) => at >= from && at < to)
    .toArray().length;
}
