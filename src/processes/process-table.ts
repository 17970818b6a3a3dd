import { Epoll, type Wakeup } from '../kernel/epoll.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import type { OpenDescription, Process } from '../model/process.ts';
import { type DescriptorStore, pidfdName } from './descriptor-store.ts';
import { LeaderlessGroups } from './leaderless-groups.ts';
import type { OwnChild } from './own-child.ts';
import type { ParentWatch } from './parent-watch.ts';
import { UnheldStops } from './unheld-stops.ts';

/** The processes that have handles and have not been reaped, each watched through one of its pidfds. */
export class ProcessTable {
  readonly epoll = new Epoll<Process | ParentWatch | OwnChild | Wakeup>();
  readonly groups = new LeaderlessGroups();
  readonly stops = new UnheldStops();
  readonly #byPid = new Map<number, Process>();
  readonly #store: DescriptorStore | null;

  /** @param store keeps pidfds when the daemon dies; `null` without a service manager */
  constructor(store: DescriptorStore | null) {
    this.#store = store;
  }

  get size(): number {
    return this.#byPid.size;
  }

  values(): IterableIterator<Process> {
    return this.#byPid.values();
  }

  /** Returns a process by its pid, which is its own until it is reaped. */
  get(pid: number): Process | undefined {
    return this.#byPid.get(pid);
  }

  /** Adds a process that has its first description, and watches it. */
  add(process: Process): void {
    this.#watch(process);
    this.#byPid.set(process.pid, process);
    const stop = this.stops.take(process.pid);
    if (stop !== null) process.reportStop(stop);
    const [first] = process.descriptions;
    if (first !== undefined) this.#store?.put(pidfdName(process.id), first.pidfd!);
  }

  #watch(process: Process): void {
    const [first] = process.descriptions;
    process.registration = first === undefined ? null : this.epoll.add(first.pidfd!, process);
  }

  #unwatch(process: Process): void {
    if (process.registration !== null) this.epoll.remove(process.registration);
    process.registration = null;
  }

  /** Drops one reference to a description. The last one closes its descriptor, and the last descriptor removes the process. */
  release(description: OpenDescription): void {
    const { process } = description;
    if (!description.drop() || description.pidfd === null) return;
    const [watched] = process.descriptions;
    if (watched === description) this.#unwatch(process);
    description.takePidfd()?.close();
    if (process.descriptions.size === 0) {
      if (process.relation === 'child' && process.stops.current !== null)
        this.stops.note(process.pid, process.stops.current);
      this.#forget(process);
    } else if (watched === description) this.#watch(process);
  }

  /** Removes a reaped process and closes its descriptors, except for one through which its group can still be reached. */
  retire(process: Process): void {
    this.#unwatch(process);
    let kept: Pidfd | null = null;
    for (const description of [...process.descriptions]) {
      kept?.close();
      kept = description.takePidfd();
    }
    if (kept !== null) this.groups.offer(process, kept);
    this.#forget(process);
  }

  /** Removes by identity, because the pid may be another process's already. */
  #forget(process: Process): void {
    this.#store?.remove(pidfdName(process.id));
    if (this.#byPid.get(process.pid) === process) this.#byPid.delete(process.pid);
  }
}
