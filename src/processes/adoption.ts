import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';
import { ParentWatch } from './parent-watch.ts';
import type { ProcessTable } from './process-table.ts';

/**
 * Returns the pid of a process's parent. It is `null` once the process is reaped, and if the parent is outside the daemon's pid
 * namespace: the kernel reports 0 then (pid_namespaces(7)), as it does for the parent of a namespace's init.
 */
export function parentOf(process: Process, pidfd: Pidfd): number | null {
  try {
    return pidfd.parent() || null;
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EREMOTE')) return null;
    return readStat(process.pid)?.parent || null; // before 6.13
  }
}

/** Errnos for which a parent is not watched. Its children are then found to be the daemon's when they stop or end, not before. */
const shortages = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC'];

/**
 * Detects when a foreign process becomes the daemon's child. A subreaper gets no signal when the parent of a grandchild dies. So the
 * parent of every foreign descendant is watched, and its children are checked again when it ends. They have their new parent by then:
 * exit_notify() in kernel/exit.c reparents before it notifies.
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
   * Checks whose child a process is, and watches its parent if it may become the daemon's later.
   * @returns whether it is the daemon's child now
   */
  follow(child: Process): boolean {
    for (;;) {
      const [description] = child.descriptions;
      if (description === undefined) return false;
      const pidfd = description.pidfd!;
      const parent = parentOf(child, pidfd);
      if (parent === this.#self) return true;
      if (parent === null || !this.#isDescendant(parent)) return false;
      const watch = this.#watch(parent);
      if (watch === 'ended') continue; // between the two checks
      if (watch === 'unwatchable') return false;
      watch.children.add(child);
      if (parentOf(child, pidfd) === parent) return false;
      this.#leave(watch, child);
    }
  }

  /** Ends the watch on a parent that has ended. @returns its children, which are to be checked again */
  ended(watch: ParentWatch): Process[] {
    const children = [...watch.children];
    this.#drop(watch);
    return children.filter((child) => child.descriptions.size > 0);
  }

  /** Stops following a process. */
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

  #isDescendant(pid: number): boolean {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = readStat(at)?.parent)
      if (at === this.#self) return true;
    // An init gets all orphans of its namespace, also those of a process that has entered it from outside.
    return this.#self === 1;
  }
}
