import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Daemon, eventually } from './harness.ts';

/** An ignored signal stays ignored across execve(2). */
export const ignoresTerm = 'trap "" TERM; echo $$; exec sleep 1000';

export interface Deaf {
  id: string;
  pid: number;
  pids: number[];
}

/** Spawns a shell script that writes a number of pids to a file once it is ready. */
export async function deaf(daemon: Daemon, script = ignoresTerm, count = 1): Promise<Deaf> {
  const file = join(daemon.directory, `pids-${Math.random()}`);
  const handle = await daemon.spawn(['sh', '-c', script], {}, { stdout: { file } });
  const pids = (): number[] => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number);
  await eventually(() => pids().length === count);
  return { id: handle.id, pid: handle.process.pid, pids: pids() };
}
