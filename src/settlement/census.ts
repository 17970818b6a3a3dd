import { inTurns } from '../kernel/in-turns.ts';
import { listPids, type ProcStat, readStat } from '../kernel/proc.ts';

/** How long the reading of /proc may block the event loop, in milliseconds. */
export const SLICE_MS = 10;

/** The processes of the machine at one time, by their pids and by what connects them. */
export class Census {
  readonly #all: ReadonlyMap<number, ProcStat>;
  readonly #byParent: ReadonlyMap<number, number[]>;
  readonly #bySession: ReadonlyMap<number, number[]>;
  readonly #byGroup: ReadonlyMap<number, number[]>;

  constructor(all: ReadonlyMap<number, ProcStat>) {
    const pids = [...all.keys()];
    this.#all = all;
    this.#byParent = Map.groupBy(pids, (pid) => all.get(pid)!.parent);
    this.#bySession = Map.groupBy(pids, (pid) => all.get(pid)!.session);
    this.#byGroup = Map.groupBy(pids, (pid) => all.get(pid)!.group);
  }

  /** Reads /proc, the highest pid first, to read a new process before it can fork and exit. Others are served in between. */
  static async take(): Promise<Census> {
    const all = new Map<number, ProcStat>();
    const pids = listPids().sort((a, b) => b - a);
    for await (const pid of inTurns(pids, SLICE_MS)) {
      const stat = readStat(pid);
      if (stat !== null) all.set(pid, stat);
    }
    return new Census(all);
  }

  get(pid: number): ProcStat | undefined {
    return this.#all.get(pid);
  }

  childrenOf(pid: number): readonly number[] {
    return this.#byParent.get(pid) ?? [];
  }

  /** Returns the members of the session with this number. */
  session(number: number): readonly number[] {
    return this.#bySession.get(number) ?? [];
  }

  /** Returns the members of the process group with this number. */
  group(number: number): readonly number[] {
    return this.#byGroup.get(number) ?? [];
  }
}
