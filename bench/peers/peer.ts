import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scene } from '../scene.ts';

/** Somebody who tells a client that a process has ended. */
export interface Peer {
  version: string;
  /** @returns nanoseconds from a child's end to the client being told, one for each of `count` children, one after another */
  measure(count: number): Promise<number[]>;
}

export interface Stage {
  scene: Scene;
  /** The program of child.c. */
  child: string;
  /** The file that it stamps. */
  file: string;
  /** What is ended when all has been measured. */
  ending: AsyncDisposableStack;
  /** What is cleared away last, however this process ends: after the scene, whose clients may still be at work in it. */
  left: DisposableStack;
}

export interface Candidate {
  name: string;
  /** By what its client is told. */
  by: string;
  /** How many times waitd's p50 its own should at least be; `null` for waitd. */
  atLeast: number | null;
  /** How many ends a run takes: whole, and where it need only be shown that it works. */
  samples: { whole: number; quick: number };
  /** @throws {Skipped} where this machine does not allow it */
  start(stage: Stage): Promise<Peer>;
}

export function buildChild(scene: Scene): { child: string; file: string } {
  const child = scene.path('child');
  const file = scene.path('stamp');
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-static', '-o', child, join(import.meta.dirname, 'child.c')]);
  writeFileSync(file, Buffer.alloc(8));
  return { child, file };
}

/** Runs one of the clients here, a process of its own, and gives the nanoseconds that it reports. */
export async function runClient(scene: Scene, script: string, task: unknown): Promise<number[]> {
  const path = join(import.meta.dirname, script);
  return JSON.parse(await scene.run(process.execPath, path, JSON.stringify(task))) as number[];
}
