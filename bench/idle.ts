import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { type Measurement, Skipped } from './measure.ts';
import type { Scene } from './scene.ts';

/** Time for strace to stop and continue every thread once. */
const ATTACH_MS = 1000;

/** The number of attempts: V8's memory reducer checks for garbage every 8 s for some minutes after the last call. */
const TRIES = 40;

/**
 * Counts the system calls, by strace, of all threads of a daemon that holds many handles without requests. The daemon
 * counts as idle after an interval of the same length without any call.
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

/** @throws {Skipped} if strace is missing or may not trace */
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
  strace.kill('SIGINT'); // makes strace detach from the daemon
  await ended;
  return callsBetween(readFileSync(file, 'utf8'), begin / 1000, (begin + watchMs) / 1000);
}

/** Counts the calls of a trace that began between two times, in seconds. An interrupted call has a second line. */
function callsBetween(trace: string, from: number, to: number): number {
  const calls = trace.matchAll(/^\d+ +(\d+\.\d+) (?!<\.\.\.|---|\+\+\+)/gm);
  return calls
    .map(([, at]) => Number(at))
    .filter((at) => at >= from && at < to)
    .toArray().length;
}
