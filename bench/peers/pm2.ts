import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Skipped } from '../measure.ts';
import { type Candidate, runClient } from './peer.ts';

const WARM_UP = 10;
const START_LIMIT_MS = 10_000;

export interface Pm2Task {
  /** Where pm2 is. */
  module: string;
  home: string;
  count: number;
  warmUp: number;
  child: string;
  file: string;
}

/** npm's package, installed into the scene; one daemon of its own for all runs. */
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
    // What the pm2 command starts in the background, as a child: so it cannot outlive the scene.
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

/** As pm2's own clients make it, before they start its daemon. */
function makeHome(home: string): string {
  for (const name of ['logs', 'pids', 'modules']) mkdirSync(join(home, name), { recursive: true });
  writeFileSync(join(home, 'module_conf.json'), '{}');
  return home;
}

/** A client that comes before it would start a daemon itself. */
async function ready(home: string): Promise<void> {
  const sockets = ['rpc.sock', 'pub.sock'].map((name) => join(home, name));
  for (let waited = 0; !sockets.every((socket) => existsSync(socket)); waited += 50) {
    if (waited > START_LIMIT_MS) throw new Error('the daemon of pm2 did not start');
    await setTimeout(50);
  }
}
