import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Skipped } from '../measure.ts';
import { type Candidate, runClient } from './peer.ts';

const WARM_UP = 10;
const START_LIMIT_MS = 10_000;

export interface Pm2Task {
  /** The directory where pm2 is installed. */
  module: string;
  home: string;
  count: number;
  warmUp: number;
  child: string;
  file: string;
}

/** npm's package, installed into the scene. One daemon of its own serves all runs. */
export const pm2: Candidate = {
  name: 'pm2',
  by: 'bus',
  atLeast: 3,
  samples: { whole: 60, quick: 20 },
  async start({ scene, child, file, ending }) {
    const prefix = scene.path('npm');
    mkdirSync(prefix);
    try {
      await scene.run('npm', 'install', '--silent', '--prefix', prefix, '--no-audit', '--no-fund', 'pm2');
    } catch {
      throw new Skipped('npm could not install it');
    }
    const module = join(prefix, 'node_modules/pm2');
    const run = (script: string, ...args: string[]): Promise<string> =>
      scene.run(
        'env',
        `PM2_HOME=${home}`,
        'PM2_DISABLE_VERSION_CHECK=true',
        process.execPath,
        join(module, script),
        ...args,
      );
    const home = makeHome(scene.path('pm2-home'));
    // The program that the pm2 command starts in the background. As a child it cannot outlive the scene.
    const ended = run('lib/Daemon.js');
    await Promise.race([ready(home), ended]);
    ending.defer(async () => {
      await run('bin/pm2', 'kill', '--silent');
      await ended;
    });
    const { version } = JSON.parse(readFileSync(join(module, 'package.json'), 'utf8')) as { version: string };
    const task = { module, home, warmUp: WARM_UP, child, file };
    return { version, measure: (count) => runClient(scene, 'pm2-client.ts', { ...task, count } satisfies Pm2Task) };
  },
};

/** Creates the directory as pm2's clients do before they start the daemon. */
function makeHome(home: string): string {
  for (const name of ['logs', 'pids', 'modules']) mkdirSync(join(home, name), { recursive: true });
  writeFileSync(join(home, 'module_conf.json'), '{}');
  return home;
}

/** Waits for the daemon, because a client that connects earlier would start another one. */
async function ready(home: string): Promise<void> {
  const sockets = ['rpc.sock', 'pub.sock'].map((name) => join(home, name));
  for (let waited = 0; !sockets.every((socket) => existsSync(socket)); waited += 50) {
    if (waited > START_LIMIT_MS) throw new Error('the daemon of pm2 did not start');
    await setTimeout(50);
  }
}
