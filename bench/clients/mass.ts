/** Measures from the first of many kills to the last `exited` event in a client; prints nanoseconds. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { followEvents } from './events.ts';
import { type MassTask, report, taskOf } from './task.ts';

const { socket, count, killer, file, pidsFile } = taskOf<MassTask>();

let left = count;
const last = Promise.withResolvers<bigint>();
const webSocket = await followEvents(socket, '', (frame, at) => {
  if (!frame.includes('"event":"exited"')) return;
  left -= 1;
  if (left === 0) last.resolve(at);
});
webSocket.once('close', (code, reason) => last.reject(new Error(`closed with ${code} ${reason}, ${left} left`)));
const [end] = await Promise.all([last.promise, promisify(execFile)(killer, ['kill', file, pidsFile])]);
webSocket.terminate();
// The killer stamped with the clock that hrtime reads: CLOCK_MONOTONIC.
report(Number(end - readFileSync(file).readBigInt64LE()));
