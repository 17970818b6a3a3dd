import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { temporaryDirectory } from './harness.ts';

const SCRIPT = join(import.meta.dirname, 'containers.sh');

/** The options of a container without privileges. */
export const hardened = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges'];

/** Warnings of Podman on a machine without systemd. */
const noise = /systemd connection to (?:add|start|remove) healthchecks/;

/** Podman with its own store, in the directory WAITD_CONTAINERS if that is set. */
export class Containers {
  readonly directory: string;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(directory: string) {
    this.directory = directory;
    this.#env = {
      ...process.env,
      CONTAINERS_CONF: join(directory, 'containers.conf'),
      CONTAINERS_STORAGE_CONF: join(directory, 'storage.conf'),
    };
  }

  /** Builds the image of this tree as `waitd:test`. */
  static up(t: Test): Containers {
    const kept = process.env.WAITD_CONTAINERS;
    const directory = kept ?? temporaryDirectory(t);
    const containers = new Containers(directory);
    if (kept === undefined) t.teardown(() => containers.#script('down'));
    containers.#script('up');
    containers.build('waitd:test');
    return containers;
  }

  #script(what: string, ...args: string[]): string {
    return execFileSync(SCRIPT, [what, this.directory, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  build(tag: string, ...args: string[]): void {
    this.#script('build', tag, ...args);
  }

  /** Runs a podman command. @returns its output. @throws {Error} if it fails */
  podman(...args: string[]): string {
    const { status, output } = this.attempt(...args);
    assert.equal(status, 0, `podman ${args.join(' ')}: ${output}`);
    return output;
  }

  attempt(...args: string[]): { status: number | null; output: string } {
    const { status, stdout, stderr } = spawnSync('podman', args, {
      env: this.#env,
      encoding: 'utf8',
      timeout: 120_000,
    });
    const said = stderr.split('\n').filter((line) => line !== '' && !noise.test(line));
    return { status, output: [stdout.trim(), ...said].filter((part) => part !== '').join('\n') };
  }

  /** Runs a container until the test ends. @returns its name */
  start(t: Test, name: string, ...args: string[]): string {
    t.teardown(() => {
      this.attempt('rm', '-f', '-t', '0', '-v', name);
    });
    this.podman('run', '-d', '--name', name, ...args);
    return name;
  }

  /** Runs a container to its end without blocking the test. */
  async finish(...args: string[]): Promise<{ code: number; output: string }> {
    const child: ChildProcess = spawn('podman', ['run', '--rm', ...args], {
      env: this.#env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (data) => {
        output += data;
      });
    const [code] = (await once(child, 'close')) as [number];
    return {
      code,
      output: output
        .split('\n')
        .filter((line) => !noise.test(line))
        .join('\n'),
    };
  }

  /** Returns the pid of a container's init on the host. */
  pidOf(name: string): number {
    return Number(this.podman('inspect', '--format', '{{.State.Pid}}', name));
  }

  /** Returns the path on the host of a path in a container, through /proc of its init. */
  pathIn(name: string, path: string): string {
    const found = `/proc/${this.pidOf(name)}/root${path}`;
    assert.ok(existsSync(found), found);
    return found;
  }
}
