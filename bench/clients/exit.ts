/**
 * Measures from a child's last instruction to the `exited` event in a client, or from its last orphan's to `settled`. One
 * child at a time writes the time into a shared file just before it exits; prints nanoseconds.
 */
import { openSync, readSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { Connection, post } from './connection.ts';
import { followEvents } from './events.ts';
import { type ExitTask, report, taskOf } from './task.ts';

/** Pause as in the floor: the machine is idle when the next child ends. */
const BETWEEN_MS = 2;

const { socket, count, warmUp, child, file, spawn, orphans } = taskOf<ExitTask>();
const argv = orphans === undefined ? [child, 'stamp', file] : ['sh', '-c', orphans, child, file];
const last = `"event":"${orphans === undefined ? 'exited' : 'settled'}"`;
const request = post('/v1/handles', { spawn: { argv, ...spawn } });
const own = `"argv":${JSON.stringify(argv)}`;
const fd = openSync(file, 'r');
const stamp = Buffer.alloc(8);

let onExited: (at: bigint) => void = () => {};
const webSocket = await followEvents(socket, '', (frame, at) => {
  // Other processes may cause events as well.
  if (frame.includes(last) && frame.includes(own)) onExited(at);
});

const connection = await Connection.open(
  socket,
  ({ status, head, body }) => {
    if (status !== 201) fail(new Error(`not spawned: ${head} ${body}`));
  },
  fail,
);

function fail(error: Error): never {
  throw error;
}

async function once(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<bigint>();
  onExited = resolve;
  connection.send(request);
  const at = await promise;
  readSync(fd, stamp, 0, 8, 0);
  await setTimeout(BETWEEN_MS);
  return Number(at - stamp.readBigInt64LE());
}

const latencies: number[] = [];
for (let done = -warmUp; done < count; done += 1) {
  const latency = await once();
  if (done >= 0) latencies.push(latency);
}
connection.close();
webSocket.terminate();
report(latencies);
