import { isKernelThread, type ProcStat, readArgv, readCgroup, readExe, readStat, startedAt } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import { HIDDEN } from '../spawn/launch-request.ts';

/** How many characters of the arguments are matched. Up to a thousand watches match each process. */
export const MOST_MATCHED = 65_536;

/** What may be known of one process. Each fact is read from /proc on first use, and secret arguments are left out. */
export class Facts {
  readonly pid: number;
  readonly #stat: ProcStat;
  #argv: readonly string[] | undefined;
  #commandLine: string | undefined;
  #cgroup: string | null | undefined;
  #exe: string | null | undefined;

  /**
   * Returns the facts of a process.
   * @param table the processes with handles: secret arguments of a spawn are replaced by the stars that stand for them
   * @returns `null` for kernel threads, zombies, and pids without a process: they have neither program nor arguments
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

  /** Tells the process from a later one of its pid: the start in hundredths of a second. */
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

  /** The arguments, joined by spaces, as far as they are matched. */
  get commandLine(): string {
    this.#commandLine ??= this.argv.join(' ').slice(0, MOST_MATCHED);
    return this.#commandLine;
  }

  /** The cgroup in the unified hierarchy, as the daemon sees it. */
  get cgroup(): string | null {
    if (this.#cgroup === undefined) this.#cgroup = readCgroup(this.pid);
    return this.#cgroup;
  }

  /** `null` if the daemon may not read it (ptrace(2), PTRACE_MODE_READ). */
  get exe(): string | null {
    if (this.#exe === undefined) this.#exe = readExe(this.pid);
    return this.#exe;
  }
}
