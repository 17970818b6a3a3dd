/**
 * Measures from a child's exit in a container to the output of `podman wait`, one container at a time; prints
 * nanoseconds.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { report, taskOf } from '../clients/task.ts';
import type { PodmanTask } from './podman.ts';

/** Lifetime of a child, and how long before its end `podman wait` must be started. */
const LIFE_MS = 600;
const SETTLED_MS = 300;
const LIMIT_MS = 240_000;

const { env, image, count, warmUp, file } = taskOf<PodmanTask>();
const options = { env: { ...process.env, ...env } };
const fd = openSync(file, 'r');
const stamp = Buffer.alloc(8);

setTimeout(LIMIT_MS, undefined, { ref: false }).then(() => {
  throw new Error('no exit reported in time');
});

function podman(...args: string[]): Promise<unknown> {
  return promisify(execFile)('podman', args, options);
}

/** @returns `null` if the machine was too slow to start the wait before the exit */
async function measure(name: string): Promise<number | null> {
  const child = ['/child', 'stamp', '/stamp', `${LIFE_MS}`];
  await podman('run', '--detach', '--name', name, '--network=none', '-v', `${file}:/stamp`, image, ...child);
  const waitingSince = process.hrtime.bigint();
  const waiting = spawn('podman', ['wait', name], { ...options, stdio: ['ignore', 'pipe', 'inherit'] });
  const closed = once(waiting, 'close');
  const [output] = (await once(waiting.stdout, 'data')) as [Buffer];
  // The clock of the child's stamp: CLOCK_MONOTONIC.
  const at = process.hrtime.bigint();
  if (String(output).trim() !== '0') throw new Error(`podman wait: ${output}`);
  await closed;
  await podman('rm', name);
  readSync(fd, stamp, 0, 8, 0);
  const ended = stamp.readBigInt64LE();
  return ended - waitingSince < BigInt(SETTLED_MS) * 1_000_000n ? null : Number(at - ended);
}

for (let done = 0; done < warmUp; done += 1) await measure('child');
const latencies: number[] = [];
while (latencies.length < count) {
  const latency = await measure('child');
  if (latency !== null) latencies.push(latency);
}
report(latencies);
