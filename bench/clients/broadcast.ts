/**
 * Opens many subscriptions in this process and triggers events; prints the frames per second, from the first to the
 * last.
 */
import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { countFrames } from './frames.ts';
import { type BroadcastTask, report, taskOf } from './task.ts';

const { socket, subscribers, events, stimulus } = taskOf<BroadcastTask>();

let first = 0;
let left = subscribers * events;
const last = Promise.withResolvers<number>();
const onFrames = (count: number): void => {
  const at = performance.now();
  first ||= at;
  left -= count;
  if (left === 0) last.resolve(at);
};
await Promise.all(Array.from({ length: subscribers }, () => countFrames(socket, onFrames)));
if ('command' in stimulus) await promisify(execFile)(stimulus.command, stimulus.args);
else connect(stimulus.socket).write(Buffer.alloc(events));
report((subscribers * events * 1000) / ((await last.promise) - first));
process.exit(0);
