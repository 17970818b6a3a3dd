import { basename, dirname, join } from 'node:path';
import type { Scene, Server } from './scene.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');

/**
 * waitd in a process of its own, with a state directory of its own.
 * @param profile where its CPU profile goes when it stops
 */
export function startDaemon(scene: Scene, profile: string | undefined): Promise<Server> {
  const socket = scene.path('waitd.sock');
  const profiling =
    profile === undefined
      ? []
      : [
          '--cpu-prof',
          '--cpu-prof-interval=200',
          `--cpu-prof-dir=${dirname(profile)}`,
          `--cpu-prof-name=${basename(profile)}`,
        ];
  const serve = ['serve', '--listen', `unix:${socket}`, '--state-dir', scene.path('state')];
  return scene.serve(socket, ...profiling, MAIN, ...serve);
}
