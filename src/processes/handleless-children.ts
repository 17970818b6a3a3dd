import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import { askWaitid, isEnd, P_ALL, P_PID, type WaitEvent, WEXITED, WNOHANG, WNOWAIT } from '../kernel/waitid.ts';
import { Listeners } from '../model/listeners.ts';
import type { Process } from '../model/process.ts';
import { OwnChild } from './own-child.ts';
import { type PendingSpawn, PendingSpawns } from './pending-spawns.ts';
import type { ProcessTable } from './process-table.ts';

/** Why a child has no handle. A child without a reason is an orphan, or is being spawned and its pid is not known yet. */
type Handleless =
  /** The daemon started it for itself. */
  | { reason: 'own'; child: OwnChild }
  /** It gets its handle soon, and its latest stop or continue with that. */
  | { reason: 'reserved'; stop: WaitEvent | null }
  /** Its spawn has failed: it is reaped when it has ended, and leaves no trace. */
  | { reason: 'discarded' };

export interface HandlelessChildrenParts {
  table: Pick<ProcessTable, 'get' | 'epoll' | 'stops'>;
  /**
   * Records the exit of a child that has a handle after all.
   * @returns false if the child stays a zombie for now
   */
  recordExit(process: Process): boolean;
  drainStops(): void;
  /** The system call, which a test replaces. */
  ask?: typeof askWaitid;
}

/**
 * The children of the daemon on which no client has a handle. The kernel makes every orphan below a subreaper or an init its child;
 * those are reaped as soon as they end. The others must not be: the reason for each is kept by its pid.
 */
export class HandlelessChildren {
  readonly #parts: HandlelessChildrenParts;
  readonly #ask: typeof askWaitid;
  readonly #byPid = new Map<number, Handleless>();
  readonly #pendingSpawns = new PendingSpawns();
  readonly #orphan = new Listeners<[pid: number, reaped: DisposableStack]>();
  /** How many orphans have been reaped. */
  orphans = 0;

  constructor(parts: HandlelessChildrenParts) {
    this.#parts = parts;
    this.#ask = parts.ask ?? askWaitid;
  }

  /**
   * Subscribes to orphans that have exited and are reaped next.
   * @param listener may defer functions on `reaped`, which run right after that
   * @returns a function that ends the subscription
   */
  onOrphan(listener: (pid: number, reaped: DisposableStack) => void): () => void {
    return this.#orphan.on(listener);
  }

  /** Resolves when a child ends that the daemon has just started for itself. */
  ownChildEnded(pid: number): Promise<WaitEvent> {
    const child = new OwnChild(Pidfd.open(pid));
    child.registration = this.#parts.table.epoll.add(child.pidfd, child);
    this.#byPid.set(pid, { reason: 'own', child });
    return child.ended.promise;
  }

  /** Announces a child whose pid is not known yet. Until the spawn is done, an unknown child is not taken for an orphan. */
  beginSpawn(): PendingSpawn {
    return this.#pendingSpawns.begin(() => this.reap());
  }

  /**
   * Prevents this pid from being reaped as an orphan until the returned function is called.
   * @param spawn is done by this; a stop of the child that was reported since its beginning is kept
   */
  reserve(pid: number, spawn: PendingSpawn): () => void {
    const reserved: Handleless = { reason: 'reserved', stop: this.#pendingSpawns.takeStop(pid, spawn) };
    this.#byPid.set(pid, reserved);
    spawn.done();
    return () => {
      if (this.#byPid.get(pid) === reserved) this.#byPid.delete(pid);
      this.reap(); // the kernel reports one zombie at a time, and this may have hidden others
    };
  }

  /** Gives up a reserved child: its spawn has failed. */
  discard(pid: number): void {
    this.#byPid.set(pid, { reason: 'discarded' });
  }

  /** Whether a process is a child that the daemon started for itself, or that is about to get its first handle. */
  isReserved(pid: number): boolean {
    const reason = this.#byPid.get(pid)?.reason;
    if (reason === 'own' || reason === 'reserved') return true;
    if (this.#pendingSpawns.size === 0 || this.#parts.table.get(pid) !== undefined) return false;
    return readStat(pid)?.parent === globalThis.process.pid;
  }

  /** Whether a stop of this child is for {@link keepStop}. */
  keepsStopOf(pid: number): boolean {
    return this.#byPid.get(pid)?.reason === 'reserved' || this.#parts.table.get(pid) === undefined;
  }

  /** Keeps a stop or continue of a child until it has its first handle. */
  keepStop(pid: number, event: WaitEvent): void {
    const known = this.#byPid.get(pid);
    if (known?.reason === 'reserved') {
      known.stop = event;
      return;
    }
    this.#pendingSpawns.keepStop(pid, event);
    this.#parts.table.stops.note(pid, event);
  }

  /** Returns the stop or continue of a reserved child that has got its first handle; `null` if there was none. */
  stopOf(pid: number): WaitEvent | null {
    const known = this.#byPid.get(pid);
    return known?.reason === 'reserved' ? known.stop : null;
  }

  /** Reaps a child that the daemon started for itself, if it has ended. */
  reapOwn(child: OwnChild): void {
    const event = child.pidfd.waitid(WEXITED | WNOHANG);
    if (event === null || !isEnd(event)) return;
    const { pid } = event.siginfo;
    this.#byPid.delete(pid);
    this.#parts.table.stops.take(pid);
    this.#parts.table.epoll.remove(child.registration!);
    child.pidfd.close();
    child.ended.resolve(event);
  }

  /** Reaps every child that has ended without a handle, as far as the kernel shows it: a zombie that must stay hides those behind it. */
  reap(): void {
    for (;;) {
      const ended = this.#ask(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT);
      if (ended === null || typeof ended === 'string') {
        this.#pendingSpawns.clearUnknownExit();
        return;
      }
      if (!isEnd(ended)) {
        this.#parts.drainStops(); // the stop of a traced child hides others until it is taken
        continue;
      }
      if (!this.#take(ended.siginfo.pid)) return;
    }
  }

  /** @returns false if the zombie stays */
  #take(pid: number): boolean {
    const known = this.#byPid.get(pid);
    const process = this.#parts.table.get(pid);
    switch (known?.reason) {
      case 'own':
        this.reapOwn(known.child);
        return true;
      case 'reserved':
        return false;
      case 'discarded':
        this.#byPid.delete(pid);
        if (process !== undefined) return this.#parts.recordExit(process);
        this.#collect(pid);
        return true;
      case undefined:
        if (process !== undefined) return this.#parts.recordExit(process);
        if (this.#pendingSpawns.mayInclude(pid)) return false;
        this.#reapOrphan(pid);
        return true;
    }
  }

  #reapOrphan(pid: number): void {
    using reaped = new DisposableStack();
    this.#orphan.emit(pid, reaped);
    this.#collect(pid);
    this.orphans += 1;
  }

  #collect(pid: number): void {
    this.#ask(P_PID, pid, WEXITED | WNOHANG);
    this.#parts.table.stops.take(pid);
  }
}
