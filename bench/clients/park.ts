/** Parks requests, each on its own connection; prints the server's resident memory per request in KiB. */
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { type Answer, Connection, post } from './connection.ts';
import { settledMemory } from './memory.ts';
import { type ParkTask, report, taskOf } from './task.ts';

/** Number of connections that are opened at once. */
const BATCH = 50;
const BATCH_MS = 20;

const { socket, pid, pathsFile, warmUp } = taskOf<ParkTask>();
const requests = (JSON.parse(readFileSync(pathsFile, 'utf8')) as string[]).map((path) => post(path));

function fail(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EAGAIN') throw error; // the server has not accepted earlier connections yet
}

function park(from: number, to: number): Promise<Connection[]> {
  const onAnswer = ({ head, body }: Answer): void => fail(new Error(`answered, and not parked: ${head} ${body}`));
  const parkOne = async (request: string): Promise<Connection> => {
    for (;;) {
      const connection = await Connection.open(socket, onAnswer, fail).catch(() => null);
      connection?.send(request);
      if (connection !== null) return connection;
      await setTimeout(BATCH_MS);
    }
  };
  return Promise.all(requests.slice(from, to).map(parkOne));
}

/** Warms up, so that the one-time cost of handling requests is part of the first reading. */
async function warmTheServerUp(): Promise<void> {
  for (let done = 0; done < warmUp; done += BATCH) {
    const parked = await park(0, BATCH);
    await setTimeout(BATCH_MS);
    for (const connection of parked) connection.close();
  }
}

await warmTheServerUp();
const before = await settledMemory(pid);
const parked: Connection[] = [];
for (let at = 0; at < requests.length; at += BATCH) parked.push(...(await park(at, at + BATCH)));
const after = await settledMemory(pid);
for (const connection of parked) connection.close();
report((after - before) / requests.length);
