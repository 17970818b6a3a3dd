import { isPidInUse } from '../kernel/pid-in-use.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';

/** How many kept descriptors are looked at whenever another one comes: enough to keep the dead from piling up. */
const SWEEP = 4;

/** What is known of an ended process that led a group. */
interface Leader extends Pick<Process, 'id' | 'pid'> {
  handles: { readonly size: number };
}

interface Kept {
  pid: number;
  pidfd: Pidfd;
  handles: number;
}

/**
 * The pidfds of processes that have ended while the process group or the session that they led lives on: only through them can the
 * survivors of the group still be reached without a race. They are given up when both have ended, and under pressure, oldest first.
 */
export class LeaderlessGroups {
  /** Whether a group is to be reached although no handle is left, by its leader's pid. */
  isWanted: (pid: number) => boolean = () => false;
  readonly #kept = new Map<number, Kept>();

  get size(): number {
    return this.#kept.size;
  }

  /** Takes a reaped leader's pidfd: keeps it if its group or its session lives, closes it if not. */
  offer({ id, pid, handles }: Leader, pidfd: Pidfd): void {
    this.#sweep();
    if ((handles.size > 0 || this.isWanted(pid)) && livesOn({ pid, pidfd }))
      this.#kept.set(id, { pid, pidfd, handles: handles.size });
    else pidfd.close();
  }

  /** Every one, with the journal's number of the process and how many handles it has. */
  *entries(): Generator<{ process: number } & Kept> {
    for (const [process, kept] of this.#kept) yield { process, ...kept };
  }

  /** Takes up one that an earlier image of the daemon kept. */
  restore({ process, ...kept }: { process: number } & Kept): void {
    this.#kept.set(process, kept);
  }

  get({ id }: Pick<Process, 'id'>): Pidfd | undefined {
    return this.#kept.get(id)?.pidfd;
  }

  /** Counts a handle more or less on an ended process. Once there is none, and nothing else wants it, the descriptor is given up. */
  count({ id, pid }: Pick<Process, 'id' | 'pid'>, change: 1 | 0 | -1): void {
    const kept = this.#kept.get(id);
    if (kept === undefined) return;
    kept.handles += change;
    if (kept.handles === 0 && !this.isWanted(pid)) this.#drop(id);
  }

  /**
   * The session that an ended process led, if it has members left. A number in use as a session id is no free pid, so only
   * a live process of that very number could be another session's leader.
   */
  session({ id, pid }: Process): number | null {
    return this.#kept.has(id) && hasSurvivors(pid) ? pid : null;
  }

  /** Gives up the oldest. @returns false where there is none */
  giveUp(): boolean {
    const [oldest] = this.#kept.keys();
    if (oldest === undefined) return false;
    this.#drop(oldest);
    return true;
  }

  #drop(id: number): void {
    this.#kept.get(id)?.pidfd.close();
    this.#kept.delete(id);
  }

  /** Looks at the oldest few: those that live on go to the end of the line. */
  #sweep(): void {
    for (const [id, kept] of [...this.#kept.entries().take(SWEEP)]) {
      if (!livesOn(kept)) this.#drop(id);
      else {
        this.#kept.delete(id);
        this.#kept.set(id, kept);
      }
    }
  }
}

function livesOn({ pid, pidfd }: Pick<Kept, 'pid' | 'pidfd'>): boolean {
  return pidfd.leadsGroup() || hasSurvivors(pid);
}

/** Whether the number of a reaped process is still that of its group or its session. A live process of that number is another one. */
function hasSurvivors(pid: number): boolean {
  return isPidInUse(pid) && readStat(pid) === null;
}
