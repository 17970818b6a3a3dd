import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Spawn } from '../../schemas/spawn.ts';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { OomKills } from './oom-kills.ts';

/** The limits of a cgroup. A missing field means no limit. */
export type CgroupLimits = NonNullable<Spawn['cgroup']>;

const CPU_PERIOD_US = 100_000;

/** The delay before another attempt to remove a cgroup that still had processes. */
const RETRY_MS = 1000;

/**
 * Creates a cgroup for each spawn that requests one, and removes it when it is empty. A cgroup is never reused, because a delayed
 * cgroup.kill would also kill the processes of its next owner.
 */
export class Cgroups {
  readonly #directory: string | null;
  readonly #prefix: string;
  readonly oomKills = new OomKills();
  /** Cgroups to remove once they have no processes. */
  readonly #released = new Set<number>();
  #retry: NodeJS.Timeout | null = null;

  /**
   * @param directory the parent cgroup (v2), which belongs to the daemon; `null` if the daemon has none
   * @param node distinguishes them from the cgroups of another daemon in the same directory
   */
  constructor(directory: string | null, node: string) {
    this.#directory = directory;
    this.#prefix = `waitd-${node}-`;
  }

  /**
   * Creates a cgroup with limits.
   * @param id the journal's number of the open description
   * @throws {Problem} EOPNOTSUPP without a directory, or if a controller is missing; EPERM if the daemon may not create it
   */
  create(id: number, limits: CgroupLimits): void {
    if (this.#directory === null)
      throw new Problem('EOPNOTSUPP', 'This daemon has no cgroup for spawned processes. Start it with --cgroup.');
    try {
      mkdirSync(this.#pathOf(id));
      this.#limit(id, limits);
    } catch (error) {
      this.release(id);
      if (isErrno(error, 'EACCES', 'EPERM', 'EROFS'))
        throw new Problem('EPERM', 'The daemon may not create a cgroup below that of --cgroup.', { syscall: 'mkdir' });
      throw error;
    }
  }

  #limit(id: number, { memoryMax, pidsMax, cpuPercent }: CgroupLimits): void {
    const set = (file: string, value: string): void => {
      if (!existsSync(this.#file(id, file)))
        throw new Problem(
          'EOPNOTSUPP',
          `The cgroup has no ${file}. Enable the ${file.split('.', 1)[0]} controller in its parent's cgroup.subtree_control.`,
        );
      writeFileSync(this.#file(id, file), value);
    };
    if (memoryMax !== undefined) {
      set('memory.max', String(memoryMax));
      // Without this limit the kernel would swap out what exceeds memory.max.
      if (existsSync(this.#file(id, 'memory.swap.max'))) set('memory.swap.max', '0');
    }
    if (pidsMax !== undefined) set('pids.max', String(pidsMax));
    if (cpuPercent !== undefined) set('cpu.max', `${Math.round((cpuPercent * CPU_PERIOD_US) / 100)} ${CPU_PERIOD_US}`);
  }

  /** Returns the path of the file that moves a process into the cgroup (cgroup.procs). */
  procsFile(id: number): string {
    return this.#file(id, 'cgroup.procs');
  }

  /** Lists the pids in the cgroup and in all cgroups below it. Empty if the cgroup does not exist. */
  pids(id: number): number[] {
    if (!this.has(id)) return [];
    const within = (directory: string): number[] => [
      ...readFileSync(join(directory, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number),
      ...readdirSync(directory, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .flatMap(({ name }) => within(join(directory, name))),
    ];
    try {
      return within(this.#pathOf(id));
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENODEV')) return [];
      throw error;
    }
  }

  /** Kills every process in the cgroup, including those that are just being forked (cgroup.kill, 5.14). */
  kill(id: number): void {
    if (this.has(id) && existsSync(this.#file(id, 'cgroup.kill'))) writeFileSync(this.#file(id, 'cgroup.kill'), '1');
  }

  /** Reports whether the cgroup of a description exists. */
  has(id: number): boolean {
    return this.#directory !== null && existsSync(this.#pathOf(id));
  }

  /** Reports whether a process lives in the cgroup or below it (`populated` in cgroup.events). A cgroup that was removed is empty. */
  isPopulated(id: number): boolean {
    if (this.#directory === null) return false;
    try {
      return /^populated 1$/m.test(readFileSync(this.#file(id, 'cgroup.events'), 'utf8'));
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENODEV')) return false;
      throw error;
    }
  }

  /**
   * Calls a listener when {@link isPopulated} may have changed.
   * @returns a function that ends this; `null` if the cgroup was removed, or the kernel has no inotify watch left
   */
  watch(id: number, listener: () => void): (() => void) | null {
    if (this.#directory === null) return null;
    try {
      const watcher = watch(this.#file(id, 'cgroup.events'), { persistent: false }, listener);
      watcher.on('error', () => {});
      return () => watcher.close();
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOSPC', 'EMFILE', 'ENFILE', 'ENOMEM')) return null;
      throw error;
    }
  }

  /** Returns the path of the cgroup of a description; `null` if it has none. */
  pathIfThere(id: number): string | null {
    return this.has(id) ? this.#pathOf(id) : null;
  }

  /** Starts to count OOM kills in the cgroup, if the description has one. */
  follow(id: number, pid: number): void {
    if (this.has(id)) this.oomKills.follow(id, pid, this.#file(id, 'memory.events'));
  }

  /** Removes the cgroup as soon as it has no processes. */
  release(id: number): void {
    if (this.#directory === null) return;
    this.oomKills.forget(id);
    this.#released.add(id);
    this.#sweep();
  }

  /** Releases every cgroup that an earlier daemon left, except those of the known descriptions. */
  releaseAllBut(known: ReadonlySet<number>): void {
    if (this.#directory === null) return;
    for (const name of readdirSync(this.#directory)) {
      const id = Number(name.slice(this.#prefix.length));
      if (name.startsWith(this.#prefix) && !known.has(id)) this.#released.add(id);
    }
    this.#sweep();
  }

  #sweep(): void {
    for (const id of this.#released) if (removeTree(this.#pathOf(id))) this.#released.delete(id);
    if (this.#released.size === 0) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#sweep();
    }, RETRY_MS).unref();
  }

  stop(): void {
    this.oomKills.stop();
    if (this.#retry !== null) clearTimeout(this.#retry);
  }

  #pathOf(id: number): string {
    return join(this.#directory!, `${this.#prefix}${id}`);
  }

  #file(id: number, name: string): string {
    return join(this.#pathOf(id), name);
  }
}

/** Removes a cgroup and those below it, from the leaves up. @returns false if one still has processes */
function removeTree(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory() && !removeTree(join(path, entry.name))) return false;
    rmdirSync(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    throw error;
  }
}
