import { isPidInUse } from '../kernel/pid-in-use.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';

/** How many kept descriptors are checked whenever another one is added: enough that those of ended groups do not pile up. */
const SWEEP = 4;

/** An ended process that led a group. */
interface Leader extends Pick<Process, 'id' | 'pid'> {
  handles: { readonly size: number };
}

interface Kept {
  pid: number;
  pidfd: Pidfd;
  handles: number;
}

/**
 * The pidfds of ended processes whose process group or session lives on. Only such a pidfd reaches the survivors of the group without
 * a race. It is closed when group and session have ended, or when descriptors run out, the oldest first.
 */
export class LeaderlessGroups {
  readonly #kept = new Map<number, Kept>();
  readonly #wanted = new Set<number>();

  get size(): number {
    return this.#kept.size;
  }

  /** Has the group of this leader kept even if no handle is left on it. */
  want(pid: number): void {
    this.#wanted.add(pid);
  }

  /** Ends that, and closes the pidfd if no handle is left. */
  unwant({ id, pid }: Pick<Process, 'id' | 'pid'>): void {
    this.#wanted.delete(pid);
    if (this.#kept.get(id)?.handles === 0) this.#drop(id);
  }

  /** Takes over the pidfd of a reaped leader. Keeps it if its group or session lives, else closes it. */
  offer({ id, pid, handles }: Leader, pidfd: Pidfd): void {
    this.#sweep();
    if ((handles.size > 0 || this.#wanted.has(pid)) && livesOn({ pid, pidfd }))
      this.#kept.set(id, { pid, pidfd, handles: handles.size });
    else pidfd.close();
  }

  /** Returns every kept pidfd, with the journal's number of its process and how many handles that has. */
  *entries(): Generator<{ process: number } & Kept> {
    for (const [process, kept] of this.#kept) yield { process, ...kept };
  }

  /** Takes over a pidfd that an earlier image of the daemon kept. */
  restore({ process, ...kept }: { process: number } & Kept): void {
    this.#kept.set(process, kept);
  }

  get({ id }: Pick<Process, 'id'>): Pidfd | undefined {
    return this.#kept.get(id)?.pidfd;
  }

  /** Counts one handle more or less on an ended process. Closes the pidfd once no handle is left, unless it is wanted. */
  count({ id, pid }: Pick<Process, 'id' | 'pid'>, change: 1 | -1): void {
    const kept = this.#kept.get(id);
    if (kept === undefined) return;
    kept.handles += change;
    if (kept.handles === 0 && !this.#wanted.has(pid)) this.#drop(id);
  }

  /**
   * Returns the session that an ended process led, if it has members left. The kernel allocates no pid that is in use as a session
   * id, so only a live process of that very number could lead another session of it.
   */
  session({ id, pid }: Process): number | null {
    return this.#kept.has(id) && hasSurvivors(pid) ? pid : null;
  }

  /** Closes the oldest pidfd. @returns whether there was one */
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

  /** Checks the oldest few, and moves those that live on to the end of the queue. */
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

/** Returns whether the pid of a reaped process still numbers its group or session. A live process of that pid is another one. */
function hasSurvivors(pid: number): boolean {
  return isPidInUse(pid) && readStat(pid) === null;
}
