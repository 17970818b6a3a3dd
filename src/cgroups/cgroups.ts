import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Spawn } from '../../schemas/handles.ts';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { OomKills } from './oom-kills.ts';

/** What bounds a cgroup; what is missing is not bounded. */
export type CgroupLimits = NonNullable<Spawn['cgroup']>;

const CPU_PERIOD_US = 100_000;

/** When a cgroup that still had processes is tried again. */
const RETRY_MS = 1000;

/**
 * A cgroup for each handle that asks for one, made for it and never used again: once one was killed whole, the kernel kills
 * whatever is born into it.
 */
export class Cgroups {
  readonly #directory: string | null;
  readonly #prefix: string;
  readonly oomKills = new OomKills();
  /** Those that are to go, once nobody is in them. */
  readonly #leaving = new Set<number>();
  #retry: NodeJS.Timeout | null = null;

  /**
   * @param directory a cgroup (v2) of ours alone, below which they are made; `null` where there are none
   * @param node tells them from those of another daemon below the same one
   */
  constructor(directory: string | null, node: string) {
    this.#directory = directory;
    this.#prefix = `waitd-${node}-`;
  }

  /**
   * @param id the journal's number of the description
   * @throws {Problem} EOPNOTSUPP without a directory, or without a controller that is needed; EPERM
   */
  create(id: number, limits: CgroupLimits): void {
    if (this.#directory === null)
      throw new Problem('EOPNOTSUPP', 'This daemon has no cgroup to make others in: start it with --cgroup.');
    try {
      mkdirSync(this.#pathOf(id));
      this.#limit(id, limits);
    } catch (error) {
      this.release(id);
      if (isErrno(error, 'EACCES', 'EPERM', 'EROFS'))
        throw new Problem('EPERM', 'The daemon may not make a cgroup below that of --cgroup.', { syscall: 'mkdir' });
      throw error;
    }
  }

  #limit(id: number, { memoryMax, pidsMax, cpuPercent }: CgroupLimits): void {
    const set = (file: string, value: string): void => {
      if (!existsSync(this.#file(id, file)))
        throw new Problem(
          'EOPNOTSUPP',
          `This cgroup has no ${file}: its parent must hand the ${file.split('.', 1)[0]} controller down.`,
        );
      writeFileSync(this.#file(id, file), value);
    };
    if (memoryMax !== undefined) {
      set('memory.max', String(memoryMax));
      // What may not be in memory may not be in swap instead.
      if (existsSync(this.#file(id, 'memory.swap.max'))) set('memory.swap.max', '0');
    }
    if (pidsMax !== undefined) set('pids.max', String(pidsMax));
    if (cpuPercent !== undefined) set('cpu.max', `${Math.round((cpuPercent * CPU_PERIOD_US) / 100)} ${CPU_PERIOD_US}`);
  }

  /** What a process that enters it writes to. */
  procsFile(id: number): string {
    return this.#file(id, 'cgroup.procs');
  }

  /** Everybody in it and in what they made below it. */
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

  /** Kills it whole, what is being forked included (cgroup.kill, 5.14). */
  kill(id: number): void {
    if (this.has(id) && existsSync(this.#file(id, 'cgroup.kill'))) writeFileSync(this.#file(id, 'cgroup.kill'), '1');
  }

  has(id: number): boolean {
    return this.#directory !== null && existsSync(this.#pathOf(id));
  }

  /** Follows what the OOM killer does in it, where it has a cgroup. */
  follow(id: number, pid: number): void {
    if (this.has(id)) this.oomKills.follow(id, pid, this.#file(id, 'memory.events'));
  }

  /** It goes, as soon as nobody is in it. */
  release(id: number): void {
    if (this.#directory === null) return;
    this.oomKills.forget(id);
    this.#leaving.add(id);
    this.#sweep();
  }

  /** Releases what an earlier daemon left that is none of these. */
  releaseAllBut(known: ReadonlySet<number>): void {
    if (this.#directory === null) return;
    for (const name of readdirSync(this.#directory)) {
      const id = Number(name.slice(this.#prefix.length));
      if (name.startsWith(this.#prefix) && !known.has(id)) this.#leaving.add(id);
    }
    this.#sweep();
  }

  #sweep(): void {
    for (const id of this.#leaving) if (isGone(this.#pathOf(id))) this.#leaving.delete(id);
    if (this.#leaving.size === 0) return;
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

/** From the leaves up; false where somebody is in it. */
function isGone(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory() && !isGone(join(path, entry.name))) return false;
    rmdirSync(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    throw error;
  }
}
