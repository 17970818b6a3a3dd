import { basename, dirname, join } from 'node:path';
import type { SpawnTask } from './clients/task.ts';
import type { Scene, Server } from './scene.ts';

/** How many processes are spawned and collected before a measurement. */
const WARM_UP = 8000;

const SOURCES = join(import.meta.dirname, '../src/main.ts');

/** The program of the package and the image, if it has been built. */
export const BUILT = join(import.meta.dirname, '../dist/src/main.js');

/** How a daemon is started, with its own state directory, and where it serves. */
export interface Command {
  socket: string;
  /** Options for Node.js. */
  args: string[];
}

/**
 * Starts the daemon as `npm start` does, except that a stop ends spawned processes too.
 * @param profile path of the CPU profile that is written at the stop
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
 * Starts waitd in its own process.
 * @param node further options for Node.js
 */
export function startDaemon(scene: Scene, profile?: string, node: readonly string[] = []): Promise<Server> {
  const { socket, args } = daemonCommand(scene, profile);
  return scene.serve(socket, ...node, ...args);
}

/** Starts a daemon and warms it up, so that V8 has compiled its hot code. */
export async function startWarmDaemon(scene: Scene, profile?: string, node: readonly string[] = []): Promise<Server> {
  const daemon = await startDaemon(scene, profile, node);
  const warmUp: SpawnTask = { socket: daemon.socket, count: 0, warmUp: WARM_UP, inFlight: 16 };
  await scene.client('spawn', warmUp);
  return daemon;
}
