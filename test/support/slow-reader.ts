import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, createReadStream, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Test } from 'tap';
import { temporaryDirectory } from './harness.ts';

/** Starts a daemon whose standard output is a pipe with a slow reader. */
export async function behindSlowReader(
  t: Test,
  args: string[],
  { directory = temporaryDirectory(t), nonblocking = false } = {},
): Promise<{ child: ChildProcess; socket: string; read: Promise<string> }> {
  const fifo = join(directory, 'fifo');
  spawnSync('mkfifo', [fifo]);
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  const reader = openSync(fifo, O_RDONLY | O_NONBLOCK);
  const writer = openSync(fifo, O_WRONLY | (nonblocking ? O_NONBLOCK : 0));
  const socket = join(directory, 'waitd.sock');
  const own = [
    '--listen',
    `unix:${socket}`,
    '--state-dir',
    join(directory, 'state'),
    '--log-level',
    'silent',
    '--audit',
    'off',
  ];
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../src/main.ts'), 'serve', ...own, ...args], {
    stdio: ['ignore', writer, 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  closeSync(writer);
  const read = async (): Promise<string> => {
    await setTimeout(500); // time for the pipe to fill up
    let text = '';
    for await (const part of createReadStream('', { fd: openSync(`/proc/self/fd/${reader}`, O_RDONLY) })) text += part;
    closeSync(reader);
    return text;
  };
  return { child, socket, read: read() };
}
