import { isKernelThread, type ProcStat, readArgv, readCgroup, readExe, readStat } from '../kernel/proc.ts';

/** What /proc tells of one process, each read when it is first asked for. */
export class Facts {
  readonly pid: number;
  readonly #stat: ProcStat;
  #argv: string | undefined;
  #cgroup: string | null | undefined;
  #exe: string | null | undefined;

  /** @returns `null` for what is no process, or no more: kernel threads and zombies have neither program nor arguments */
  static of(pid: number): Facts | null {
    const stat = readStat(pid);
    return stat === null || 'ZX'.includes(stat.state) || isKernelThread(stat) ? null : new Facts(pid, stat);
  }

  private constructor(pid: number, stat: ProcStat) {
    this.pid = pid;
    this.#stat = stat;
  }

  /** Tells it from another of its pid, to a hundredth of a second. */
  get key(): string {
    return `${this.pid} ${this.#stat.startTicks}`;
  }

  /** The arguments with a space between each. */
  get argv(): string {
    this.#argv ??= readArgv(this.pid).join(' ');
    return this.#argv;
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
