import { basename, dirname, join } from 'node:path';
import type { SpawnTask } from './clients/task.ts';
import type { Scene, Server } from './scene.ts';

/** Spawned and collected before anything is measured. */
const WARM_UP = 8000;

const SOURCES = join(import.meta.dirname, '../src/main.ts');

/** What the package and the image run, if it has been built. */
export const BUILT = join(import.meta.dirname, '../dist/src/main.js');

/** How a daemon is started, with a state directory of its own, and where it serves. */
export interface Command {
  socket: string;
  /** For Node. */
  args: string[];
}

/**
 * As `npm start` does; but when it stops it takes along what it has spawned.
 * @param profile where its CPU profile goes when it stops
 * @param main the program
 */
export function daemonCommand(scene: Scene, profile?: string, main: string = SOURCES): Command {
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
  const serve = ['serve', '--listen', `unix:${socket}`, '--state-dir', scene.path('state'), '--stop-children'];
  return { socket, args: [...profiling, main, ...serve] };
}

/**
 * waitd in a process of its own.
 * @param node what else Node is told
 */
export function startDaemon(scene: Scene, profile?: string, node: readonly string[] = []): Promise<Server> {
  const { socket, args } = daemonCommand(scene, profile);
  return scene.serve(socket, ...node, ...args);
}

/** One that has run for a while: V8 has compiled what it does all the time. */
export async function startWarmDaemon(scene: Scene, profile?: string, node: readonly string[] = []): Promise<Server> {
  const daemon = await startDaemon(scene, profile, node);
  const warmUp: SpawnTask = { socket: daemon.socket, count: 0, warmUp: WARM_UP, inFlight: 16 };
  await scene.client('spawn', warmUp);
  return daemon;
}
