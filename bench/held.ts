import { writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { Caller } from './clients/caller.ts';
import { ask, post } from './clients/connection.ts';
import { Skipped } from './measure.ts';
import type { Scene, Server } from './scene.ts';

const IN_FLIGHT = 16;

/** Time for the children started last to go to sleep; `settling` in floor.c is the same. */
const HELD_SETTLE_MS = 1000;

/** Live handles of one daemon, each on its own idle child. */
export interface Held {
  ids: string[];
  /** A file with their pids, one per line. */
  pidsFile: string;
  /** Kills the children, and resolves when the daemon has collected all of them. */
  end(): Promise<void>;
}

/**
 * Makes a daemon hold a number of live handles, and returns when the children are asleep.
 * @param more further fields of each spawn
 * @throws {Skipped} if the machine does not allow so many descriptors or processes
 */
export async function hold(
  scene: Scene,
  { socket }: Server,
  floor: string,
  count: number,
  more: object = {},
): Promise<Held> {
  const request = post('/v1/handles', { spawn: { argv: [floor, 'pause'], ...more } });
  const ids: string[] = [];
  const pids: number[] = [];
  let left = count;
  const keepSpawning = async (): Promise<void> => {
    using caller = await Caller.open(socket);
    for (; left > 0; ) {
      left -= 1;
      const { body } = await caller.ask(request, 201);
      const handle = JSON.parse(body) as { id: string; process: { pid: number } };
      ids.push(handle.id);
      pids.push(handle.process.pid);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, count) }, keepSpawning));
  } catch (error) {
    if (error instanceof Error && error.message.includes(' 503 '))
      throw new Skipped(`only ${ids.length} of ${count} handles could be held: ${detailOf(error.message)}`);
    throw error;
  }
  const pidsFile = scene.path('pids');
  writeFileSync(pidsFile, pids.join('\n'));
  await setTimeout(HELD_SETTLE_MS);
  const end = async (): Promise<void> => {
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    const { status } = await ask(socket, post('/v1/poll', { handles: ids, until: 'all' }));
    if (status !== 200) throw new Error(`poll for the exits failed: ${status}`);
  };
  return { ids, pidsFile, end };
}

function detailOf(message: string): string {
  return /"detail":"([^"]*)"/.exec(message)?.[1] ?? message;
}
