import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Skipped } from '../measure.ts';
import { debian } from './debian.ts';
import { type Candidate, runClient } from './peer.ts';

const CONTAINERS = join(import.meta.dirname, '../../test/support/containers.sh');
const IMAGE = 'localhost/child';
const WARM_UP = 1;
/** How long to wait for processes that still use the store: a container's life and its cleanup. */
const QUIET_LIMIT_MS = 10_000;

export interface PodmanTask {
  env: Record<string, string>;
  image: string;
  count: number;
  warmUp: number;
  file: string;
}

/** Debian's podman with runc, with a store of its own and an image that contains only the child. */
export const podman: Candidate = {
  name: 'podman',
  by: 'podman wait',
  atLeast: 10,
  samples: { whole: 20, quick: 3 },
  async start({ scene, child, file, left }) {
    if (process.getuid!() !== 0) throw new Skipped('its containers need root');
    if (!['podman', 'runc'].every(isThere)) await debian(scene, 'install', 'podman', 'runc');
    const directory = mkdtempSync(join(tmpdir(), 'waitd-bench-podman-'));
    left.defer(() => clearAway(directory));
    const env = configure(directory);
    const run = (...args: string[]): Promise<string> =>
      scene.run('env', ...Object.entries(env).map(([name, value]) => `${name}=${value}`), 'podman', ...args);
    const image = scene.path('image.tar');
    await scene.run('tar', '-cf', image, '--transform', 's|.*|child|', '-P', child);
    try {
      await run('import', '--quiet', image, IMAGE);
      await run('run', '--rm', '--network=none', '-v', `${file}:/stamp`, IMAGE, '/child', 'stamp', '/stamp');
    } catch {
      throw new Skipped('podman cannot run a container here');
    }
    const task = { env, image: IMAGE, warmUp: WARM_UP, file };
    return {
      version: (await run('--version')).trim().replace('podman version ', ''),
      measure: (count) => runClient(scene, 'podman-client.ts', { ...task, count } satisfies PodmanTask),
    };
  },
};

function isThere(command: string): boolean {
  return process.env.PATH!.split(':').some((directory) => existsSync(join(directory, command)));
}

/** @returns an environment that confines podman's files to the directory */
function configure(directory: string): Record<string, string> {
  const storage = join(directory, 'storage.conf');
  const containers = join(directory, 'containers.conf');
  mkdirSync(join(directory, 'tmp'));
  writeFileSync(
    storage,
    `[storage]\ndriver = "overlay"\ngraphroot = "${directory}/graph"\nrunroot = "${directory}/run"\n`,
  );
  // Podman would raise both limits, which some root users may not.
  const descriptors = execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim();
  writeFileSync(
    containers,
    `[containers]
default_ulimits = ["nofile=${descriptors}:${descriptors}", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${directory}/tmp"
`,
  );
  return { CONTAINERS_CONF: containers, CONTAINERS_STORAGE_CONF: storage };
}

/**
 * Removes containers, mounts and files. An interrupted podman must end first, or it would create removed files again.
 */
function clearAway(directory: string): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; waited < QUIET_LIMIT_MS && isAtWork(directory); waited += 100) Atomics.wait(sleeper, 0, 0, 100);
  execFileSync(CONTAINERS, ['down', directory], { stdio: 'ignore' });
}

function isAtWork(directory: string): boolean {
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return ['environ', 'cmdline'].some((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1').includes(directory));
    } catch {
      return false;
    }
  });
}
