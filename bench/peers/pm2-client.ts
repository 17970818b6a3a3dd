/** Measures from a child's exit to `exit` on pm2's bus, starting one process repeatedly; prints nanoseconds. */
import { openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { report, taskOf } from '../clients/task.ts';
import type { Pm2Task } from './pm2.ts';

type Callback<T> = (error: Error | null, value: T) => void;

/** The used part of pm2's API; pm2 is not a dependency. */
interface Pm2 {
  connect(callback: Callback<void>): void;
  disconnect(): void;
  launchBus(callback: Callback<{ on(event: string, listener: (message: { event: string }) => void): void }>): void;
  start(options: Record<string, unknown>, callback: Callback<unknown>): void;
  restart(name: string, callback: Callback<unknown>): void;
  delete(name: string, callback: Callback<unknown>): void;
}

const BETWEEN_MS = 20;
const LIMIT_MS = 120_000;

const { module, home, count, warmUp, child, file } = taskOf<Pm2Task>();
process.env.PM2_HOME = home;
process.env.PM2_DISABLE_VERSION_CHECK = 'true';
const pm2 = createRequire(import.meta.url)(module) as Pm2;
const fd = openSync(file, 'r');
const stamp = Buffer.alloc(8);

setTimeout(LIMIT_MS, undefined, { ref: false }).then(() => {
  throw new Error('no exit reported in time');
});
await promisify(pm2.connect.bind(pm2))();
const bus = await promisify(pm2.launchBus.bind(pm2))();
let onExit: (at: bigint) => void = () => {};
bus.on('process:event', ({ event }) => {
  // The clock of the child's stamp: CLOCK_MONOTONIC.
  const at = process.hrtime.bigint();
  if (event === 'exit') onExit(at);
});

const options = {
  name: 'child',
  script: child,
  args: ['stamp', file],
  interpreter: 'none',
  autorestart: false,
  // Prevents a search for a git repository at each start, and an error because of frequent exits.
  vizion: false,
  max_restarts: Number.MAX_SAFE_INTEGER,
};
const start = (): Promise<unknown> => promisify(pm2.start.bind(pm2))(options);
const restart = (): Promise<unknown> => promisify(pm2.restart.bind(pm2))(options.name);

async function once(begin: () => Promise<unknown>): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<bigint>();
  onExit = resolve;
  const [at] = await Promise.all([promise, begin()]);
  readSync(fd, stamp, 0, 8, 0);
  await setTimeout(BETWEEN_MS);
  return Number(at - stamp.readBigInt64LE());
}

const latencies: number[] = [];
for (let done = -warmUp; done < count; done += 1) {
  const latency = await once(done === -warmUp ? start : restart);
  if (done >= 0) latencies.push(latency);
}
await promisify(pm2.delete.bind(pm2))(options.name);
pm2.disconnect();
report(latencies);
process.exit();
