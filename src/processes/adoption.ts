import type { Registration } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';
import type { ProcessTable } from './process-table.ts';

/** A process that we watch because children of it have handles: when it ends, they may come to us. */
export class ParentWatch {
  readonly pid: number;
  readonly pidfd: Pidfd;
  readonly children = new Set<Process>();
  registration: Registration | null = null;

  constructor(pid: number, pidfd: Pidfd) {
    this.pid = pid;
    this.pidfd = pidfd;
  }
}

/**
 * The parent's pid as we see it, `null` once the process is reaped, and where the parent is outside our pid namespace: the
 * kernel writes 0 then (pid_namespaces(7)), as it does for the parent of a namespace's init.
 */
export function parentOf(process: Process, pidfd: Pidfd): number | null {
  try {
    return pidfd.parent() || null;
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EREMOTE')) return null;
    return readStat(process.pid)?.parent || null; // before 6.13
  }
}

/** What watching a parent may lack. Its children are then found to be ours when they stop or end, not when they are adopted. */
const shortages = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC'];

/**
 * Notices when a foreign process comes to us. Adoption is silent: the subreaper gets no signal when a grandchild's parent
 * dies. So the parent of every foreign process below us is watched, and its children are looked at again when it ends; by
 * then they have their new parent (kernel/exit.c: exit_notify reparents before it notifies).
 */
export class Adoption {
  readonly #table: ProcessTable;
  readonly #watches = new Map<number, ParentWatch>();
  readonly #self: number;

  constructor(table: ProcessTable, self: number = process.pid) {
    this.#table = table;
    this.#self = self;
  }

  /**
   * Looks whose child a process is, and watches its parent where it may still become ours.
   * @returns true where it is ours now
   */
  follow(child: Process): boolean {
    for (;;) {
      const [description] = child.descriptions;
      if (description === undefined) return false;
      const pidfd = description.pidfd!;
      const parent = parentOf(child, pidfd);
      if (parent === this.#self) return true;
      if (parent === null || !this.#isBelowUs(parent)) return false;
      const watch = this.#watch(parent);
      if (watch === 'ended') continue; // between the two looks
      if (watch === 'unwatchable') return false;
      watch.children.add(child);
      if (parentOf(child, pidfd) === parent) return false;
      this.#leave(watch, child);
    }
  }

  /** A watched parent has ended: whose are its children now? @returns those to look at again */
  ended(watch: ParentWatch): Process[] {
    const children = [...watch.children];
    this.#drop(watch);
    return children.filter((child) => child.descriptions.size > 0);
  }

  /** Nobody wants to know of this process any more. */
  forget(child: Process): void {
    for (const watch of this.#watches.values()) if (watch.children.has(child)) this.#leave(watch, child);
  }

  #watch(pid: number): ParentWatch | 'ended' | 'unwatchable' {
    const known = this.#watches.get(pid);
    if (known !== undefined) return known;
    let pidfd: Pidfd | null = null;
    try {
      pidfd = Pidfd.open(pid);
      const watch = new ParentWatch(pid, pidfd);
      watch.registration = this.#table.epoll.add(pidfd, watch);
      this.#watches.set(pid, watch);
      return watch;
    } catch (error) {
      pidfd?.close();
      if (isErrno(error, 'ESRCH')) return 'ended';
      if (isErrno(error, ...shortages)) return 'unwatchable';
      throw error;
    }
  }

  #leave(watch: ParentWatch, child: Process): void {
    watch.children.delete(child);
    if (watch.children.size === 0) this.#drop(watch);
  }

  #drop(watch: ParentWatch): void {
    if (watch.registration !== null) this.#table.epoll.remove(watch.registration);
    watch.registration = null;
    watch.pidfd.close();
    if (this.#watches.get(watch.pid) === watch) this.#watches.delete(watch.pid);
  }

  #isBelowUs(pid: number): boolean {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = readStat(at)?.parent)
      if (at === this.#self) return true;
    // Orphans of a namespace go to its init, also those of a process that has entered it from outside.
    return this.#self === 1;
  }
}
