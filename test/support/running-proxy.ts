import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, chmodSync, chownSync, constants, readFileSync } from 'node:fs';
import type { Test } from 'tap';
import { freePort } from './document-shell.ts';
import { eventually, temporaryDirectory } from './harness.ts';
import { descendantsOf, kill } from './leftovers.ts';
import type { Kind, Site } from './proxies.ts';
import { blocks, type Change, replaced } from './proxies-document.ts';

const STOP_MS = 10_000;

/** Returns the reason why a proxy cannot run on this machine; null if it can. */
export function missing({ program }: Kind): string | null {
  if (process.getuid!() !== 0) return 'only root can start it as Debian does';
  try {
    accessSync(program, constants.X_OK);
    return null;
  } catch {
    return `${program} is not installed`;
  }
}

/** A proxy with a configuration of docs/how-to/proxies.md, on ports of its own. */
export class RunningProxy {
  readonly site: Site;
  readonly #child: ChildProcess;
  #log = '';

  private constructor(site: Site, child: ChildProcess) {
    this.site = site;
    this.#child = child;
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (data) => {
        this.#log += data;
      });
  }

  /**
   * Starts it.
   * @param changes more replacements, after those of its kind
   * @returns once it listens on both ports
   */
  static async start(
    t: Test,
    kind: Kind,
    of: Pick<Site, 'socket' | 'certificate'>,
    changes: readonly Change[] = [],
  ): Promise<RunningProxy> {
    const directory = temporaryDirectory(t);
    chmodSync(directory, 0o755);
    const [uid, gid] = ['-u', '-g'].map((flag) => Number(execFileSync('id', [flag, kind.user], { encoding: 'utf8' })));
    chownSync(directory, uid!, gid!);
    const site = { ...of, http: await freePort(), https: await freePort() };
    const [block = ''] = blocks(kind.name, kind.language);
    const local = replaced(replaced(block, kind.replacements(site, directory)), changes);
    const [command = '', ...args] = kind.lay(local, directory);
    const proxy = new RunningProxy(site, spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
    t.teardown(() => proxy.#stop());
    await eventually(() => {
      assert.ok(!proxy.#hasEnded, `${kind.name} ended: ${proxy.#log}`);
      return proxy.#listens();
    }, `${kind.name} listens`);
    return proxy;
  }

  /** Tells whether both ports are in the state 0A, TCP_LISTEN, of the kernel's table. */
  #listens(): boolean {
    const table = readFileSync('/proc/net/tcp', 'utf8');
    return [this.site.http, this.site.https].every((port) =>
      new RegExp(`0100007F:${port.toString(16).toUpperCase().padStart(4, '0')} 00000000:0000 0A`).test(table),
    );
  }

  get #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async #stop(): Promise<void> {
    const child = this.#child;
    if (this.#hasEnded) return;
    const exit = once(child, 'exit');
    const all = [child.pid!, ...descendantsOf(child.pid!)];
    child.kill('SIGTERM');
    // Caddy waits for its open requests.
    const late = setTimeout(() => all.forEach(kill), STOP_MS);
    await exit;
    clearTimeout(late);
  }
}
