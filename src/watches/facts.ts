import { isKernelThread, type ProcStat, readArgv, readCgroup, readExe, readStat, startedAt } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import { HIDDEN } from '../spawn/launch-request.ts';

/** How much of the arguments is matched, in characters: up to a thousand watches look at each process. */
export const MOST_MATCHED = 65_536;

/** What may be known of one process: what /proc tells, each read when it is first asked for, without what is kept secret. */
export class Facts {
  readonly pid: number;
  readonly #stat: ProcStat;
  #argv: readonly string[] | undefined;
  #commandLine: string | undefined;
  #cgroup: string | null | undefined;
  #exe: string | null | undefined;

  /**
   * @param table of the processes that are held: those that were started with secret arguments are known by what stands for them
   * @returns `null` for what is no process, or no more: kernel threads and zombies have neither program nor arguments
   */
  static of(pid: number, table: Pick<ProcessTable, 'get'>): Facts | null {
    const stat = readStat(pid);
    if (stat === null || 'ZX'.includes(stat.state) || isKernelThread(stat)) return null;
    const argv = table.get(pid)?.argv;
    return new Facts(pid, stat, argv?.includes(HIDDEN) ? argv : undefined);
  }

  private constructor(pid: number, stat: ProcStat, argv: readonly string[] | undefined) {
    this.pid = pid;
    this.#stat = stat;
    this.#argv = argv;
  }

  /** Tells it from another of its pid, to a hundredth of a second. */
  get key(): string {
    return `${this.pid} ${this.#stat.startTicks}`;
  }

  /** Unix milliseconds. */
  get startedAt(): number {
    return startedAt(this.#stat);
  }

  get argv(): readonly string[] {
    this.#argv ??= readArgv(this.pid);
    return this.#argv;
  }

  /** The arguments with a space between each, as far as they are matched. */
  get commandLine(): string {
    this.#commandLine ??= this.argv.join(' ').slice(0, MOST_MATCHED);
    return this.#commandLine;
  }

  /** As the daemon sees it, in the unified hierarchy. */
  get cgroup(): string | null {
    if (this.#cgroup === undefined) this.#cgroup = readCgroup(this.pid);
    return this.#cgroup;
  }

  /** `null` where the daemon may not read it (ptrace(2), PTRACE_MODE_READ). */
  get exe(): string | null {
    if (this.#exe === undefined) this.#exe = readExe(this.pid);
    return this.#exe;
  }
}
