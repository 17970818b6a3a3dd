/**
 * Input and output of a program: how long a byte takes from the client through a program and back, and how fast many
 * bytes go in and come out. Prints nanoseconds of each echo, and bytes per second.
 */
import { request } from 'node:http';
import { WebSocket } from 'ws';
import { Api } from './api.ts';
import { report, taskOf } from './task.ts';

export interface ConversationTask {
  socket: string;
  /** What a spawn has besides `argv`: a pipe, or a terminal. */
  spawn: object;
  /** A program that returns what it reads at once. */
  echo: string[];
  /** A program that reads everything and says nothing; `null` to leave that out. */
  sink: string[] | null;
  /** A program that writes `bytes` bytes. */
  source: string[];
  echoes: number;
  bytes: number;
}

export interface ConversationResult {
  echoes: number[];
  in: number;
  out: number;
}

const task = taskOf<ConversationTask>();
const { socket, bytes } = task;
using api = new Api(socket);

async function spawn(argv: string[]): Promise<string> {
  const body = { spawn: { argv, ...task.spawn } };
  return (await api.call<{ id: string }>('POST /v1/handles', 201, { body })).id;
}

function attach(id: string, take: (count: number) => void): WebSocket {
  const attached = new WebSocket(`ws+unix:${socket}:/v1/handles/${id}/attach`, ['waitd.attach.v1']);
  attached.on('message', (data, isBinary) => isBinary && take((data as Buffer).length - 9));
  return attached;
}

const closed = (attached: WebSocket): Promise<void> =>
  new Promise((resolve) => attached.once('close', () => resolve()));
const perSecond = (from: bigint): number => (bytes * 1e9) / Number(process.hrtime.bigint() - from);

async function echo(): Promise<number[]> {
  const id = await spawn(task.echo);
  const took: number[] = [];
  let from = 0n;
  const frame = Buffer.from('\0x');
  const send = (): void => {
    from = process.hrtime.bigint();
    attached.send(frame);
  };
  const attached = attach(id, () => {
    took.push(Number(process.hrtime.bigint() - from));
    if (took.length < task.echoes) send();
    else attached.terminate();
  });
  attached.once('open', send);
  await closed(attached);
  await api.call(`DELETE /v1/handles/${id}?signal=SIGKILL`, 204);
  return took;
}

async function writeAll(argv: string[]): Promise<number> {
  const id = await spawn(argv);
  const from = process.hrtime.bigint();
  const chunk = Buffer.alloc(65536);
  await new Promise<void>((resolve, reject) => {
    const path = `/v1/handles/${id}/stdin?eof=true`;
    const headers = { 'content-type': 'application/octet-stream', 'content-length': bytes };
    const sending = request({ socketPath: socket, method: 'POST', path, headers }, (answer) =>
      answer.resume().once('end', resolve),
    );
    sending.on('error', reject);
    let left = bytes;
    const send = (): void => {
      while (left > 0) {
        left -= chunk.length;
        if (!sending.write(chunk)) {
          sending.once('drain', send);
          return;
        }
      }
      sending.end();
    };
    send();
  });
  await api.call(`POST /v1/handles/${id}/waitid`, 200);
  return perSecond(from);
}

async function readAll(): Promise<number> {
  const from = process.hrtime.bigint();
  await closed(attach(await spawn(task.source), () => {}));
  return perSecond(from);
}

report({ echoes: await echo(), in: task.sink === null ? 0 : await writeAll(task.sink), out: await readAll() });
