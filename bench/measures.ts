import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WebSocket } from 'ws';
import { Connection } from './connection.ts';
import { quantile } from './statistics.ts';

const SPAWN = (argv: string[]): string => JSON.stringify({ spawn: { argv } });
const idOf = (body: string): string => (JSON.parse(body) as { id: string }).id;

/** Processes a second: spawned and collected by a client over as many connections as are in flight. */
export async function spawnRate(socket: string, count: number, inFlight: number): Promise<number> {
  const connections = await Promise.all(Array.from({ length: inFlight }, () => Connection.open(socket)));
  const begin = performance.now();
  let started = 0;
  await Promise.all(
    connections.map(async (connection) => {
      while (started < count) {
        started += 1;
        const id = idOf((await connection.post('/v1/handles', SPAWN(['/bin/true']))).body);
        const { status } = await connection.post(`/v1/handles/${id}/waitid`);
        if (status !== 200) throw new Error(`waitid answered ${status}`);
      }
      connection.close();
    }),
  );
  return count / ((performance.now() - begin) / 1000);
}

export function floorSpawnRate(floor: string, count: number, inFlight: number): number {
  return Number(execFileSync(floor, ['spawn', String(count), String(inFlight)], { encoding: 'utf8' }));
}

export interface Latency {
  p50: number;
  p99: number;
}

const latencyOf = (nanoseconds: number[]): Latency => ({
  p50: quantile(nanoseconds, 0.5) / 1000,
  p99: quantile(nanoseconds, 0.99) / 1000,
});

/** From a child's last instruction to its event in this process, in microseconds. */
export async function exitLatency(socket: string, floor: string, directory: string, count: number): Promise<Latency> {
  const file = join(directory, 'stamp');
  writeFileSync(file, Buffer.alloc(8));
  const fd = openSync(file, 'r');
  const stamp = Buffer.alloc(8);
  const ws = new WebSocket(`ws+unix:${socket}:/v1/events?type=exited`, 'waitd.v1');
  let arrived: (at: bigint) => void = () => {};
  const opened = new Promise((resolve) => ws.once('message', resolve));
  ws.on('message', () => arrived(process.hrtime.bigint()));
  await opened;
  const connection = await Connection.open(socket);
  const all: number[] = [];
  for (let n = 0; n < count; n += 1) {
    const event = new Promise<bigint>((resolve) => {
      arrived = resolve;
    });
    await connection.post('/v1/handles', SPAWN([floor, 'stamp', file]));
    const at = await event;
    readSync(fd, stamp, 0, 8, 0);
    all.push(Number(at - stamp.readBigUInt64LE()));
  }
  closeSync(fd);
  connection.close();
  ws.terminate();
  return latencyOf(all);
}

export function floorExitLatency(floor: string, count: number): Latency {
  const text = execFileSync(floor, ['latency', String(count)], { encoding: 'utf8' });
  return latencyOf(text.trim().split('\n').map(Number));
}

/** Calls a second over some connections, and the p50 of a single one in microseconds. */
export async function callRate(
  socket: string,
  path: string,
  connections: number,
  milliseconds: number,
): Promise<{ rate: number; p50: number }> {
  const open = await Promise.all(Array.from({ length: connections }, () => Connection.open(socket)));
  const end = performance.now() + milliseconds;
  const times: number[] = [];
  await Promise.all(
    open.map(async (connection) => {
      for (let at = performance.now(); at < end; ) {
        const { status } = await connection.post(path);
        if (status !== 409) throw new Error(`answered ${status}`);
        const now = performance.now();
        times.push(now - at);
        at = now;
      }
      connection.close();
    }),
  );
  return { rate: times.length / (milliseconds / 1000), p50: quantile(times, 0.5) * 1000 };
}
