import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scene } from '../scene.ts';

/** A process manager that notifies a client when a process has ended. */
export interface Peer {
  version: string;
  /** @returns nanoseconds from a child's exit to the client's notification, for `count` children, one after another */
  measure(count: number): Promise<number[]>;
}

export interface Stage {
  scene: Scene;
  /** The program built from child.c. */
  child: string;
  /** The file that the child stamps. */
  file: string;
  /** Ended after the measurement. */
  ending: AsyncDisposableStack;
  /** Cleaned up last, however this process ends: after the scene, whose clients may still be using it. */
  left: DisposableStack;
}

export interface Candidate {
  name: string;
  /** How its client is notified. */
  by: string;
  /** The least expected ratio of its p50 to waitd's; `null` for waitd. */
  atLeast: number | null;
  /** Exits per run: in a whole run, and in a quick one that only shows that it works. */
  samples: { whole: number; quick: number };
  /** @throws {Skipped} if this machine does not allow it */
  start(stage: Stage): Promise<Peer>;
}

export function buildChild(scene: Scene): { child: string; file: string } {
  const child = scene.path('child');
  const file = scene.path('stamp');
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-static', '-o', child, join(import.meta.dirname, 'child.c')]);
  writeFileSync(file, Buffer.alloc(8));
  return { child, file };
}

/** Runs a client in a process of its own, and returns the nanoseconds that it reports. */
export async function runClient(scene: Scene, script: string, task: unknown): Promise<number[]> {
  const path = join(import.meta.dirname, script);
  return JSON.parse(await scene.run(process.execPath, path, JSON.stringify(task))) as number[];
}
