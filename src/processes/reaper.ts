import type { Outcome } from '../../schemas/common.ts';
import type { Cgroups } from '../cgroups/cgroups.ts';
import type { EventSink } from '../journal/batch.ts';
import { Batch } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { type Readiness, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { since } from '../kernel/features.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import {
  isEnd,
  P_ALL,
  P_PID,
  type WaitEvent,
  WCONTINUED,
  WEXITED,
  WNOHANG,
  WNOWAIT,
  WSTOPPED,
  waitid,
} from '../kernel/waitid.ts';
import { Listeners } from '../model/listeners.ts';
import { outcomeOf, outcomeOfStatus } from '../model/outcome.ts';
import type { Ending, Process } from '../model/process.ts';
import { type Adoption, ParentWatch } from './adoption.ts';
import { OwnChild } from './own-child.ts';
import { type PendingSpawn, PendingSpawns } from './pending-spawns.ts';
import type { ProcessTable } from './process-table.ts';

/** SIGCHLD is looked after at once, but under load no more often than this. */
const CHILD_SIGNAL_INTERVAL_MS = 20;

export interface ReaperParts {
  table: ProcessTable;
  journal: Journal;
  adoption: Adoption;
  feed: EventSink;
  cgroups: Cgroups;
  /** Whether EPOLLHUP tells of a reap (6.9), and PIDFD_GET_INFO of the exit (6.15). */
  tellsReap: boolean;
}

/**
 * The way of an exit: epoll wakes, we peek, the journal writes, and only then is the status taken from the kernel. So
 * there is no moment in which it exists nowhere.
 */
export class Reaper {
  readonly #parts: ReaperParts;
  /** Ended, told, but not on disk yet: they stay zombies, and in memory, until they are. */
  readonly #unwritten = new Set<Process>();
  /** Pids of those that somebody else takes, should they end now. */
  readonly #reserved = new Map<number, WaitEvent | null>();
  /** Children that came to nothing. */
  readonly #discarded = new Set<number>();
  readonly #pendingSpawns = new PendingSpawns();
  /** By pid. */
  readonly #ownChildren = new Map<number, OwnChild>();
  #childSignal: NodeJS.Timeout | null = null;
  #lastLook = 0;
  readonly #retired = new Listeners<[process: Process]>();
  readonly #ended = new Listeners<[process: Process]>();
  readonly #orphan = new Listeners<[pid: number, reaped: DisposableStack]>();
  /** How many ended, by reason; how many orphans were reaped. */
  readonly counts = { exited: 0, killed: 0, dumped: 0, unknown: 0, orphans: 0 };

  constructor(parts: ReaperParts) {
    this.#parts = parts;
  }

  /** Subscribes to processes of which nothing more will be reported. @returns a function that ends the subscription */
  onRetired(listener: (process: Process) => void): () => void {
    return this.#retired.on(listener);
  }

  /** Subscribes to processes that have ended, once the end is written. @returns a function that ends the subscription */
  onEnded(listener: (process: Process) => void): () => void {
    return this.#ended.on(listener);
  }

  /**
   * Subscribes to children without a handle that have exited and are reaped next.
   * @param listener may defer functions on `reaped`, which run right after that
   * @returns a function that ends the subscription
   */
  onOrphan(listener: (pid: number, reaped: DisposableStack) => void): () => void {
    return this.#orphan.on(listener);
  }

  /** Begins to look after children. */
  start(): void {
    const { table, journal } = this.#parts;
    table.epoll.start(() => this.wake());
    journal.onRecovered(() => this.#recovered());
    // Before anything else can end: with SIGCHLD ignored, which exec hands down, the kernel would throw every status away.
    process.on('SIGCHLD', this.#onChildSignal);
    this.lookAfterChildren();
  }

  stop(): void {
    process.off('SIGCHLD', this.#onChildSignal);
    if (this.#childSignal !== null) clearTimeout(this.#childSignal);
    this.#parts.table.epoll.stop();
  }

  /**
   * Takes what epoll has.
   * @returns whether that was all; else there will be another wake
   */
  wake(): boolean {
    const { table, adoption } = this.#parts;
    const ended: Readiness<Process>[] = [];
    const orphaned: Process[] = [];
    const { ready, all } = table.epoll.drain();
    for (const { token, reaped } of ready) {
      if (token instanceof Wakeup) token.ready();
      else if (token instanceof OwnChild) this.#reapOwnChild(token);
      else if (token instanceof ParentWatch) orphaned.push(...adoption.ended(token));
      else ended.push({ token, reaped });
    }
    this.#recordExits(ended);
    for (const child of orphaned) if (!child.settled && adoption.follow(child)) this.adopt(child);
    // A zombie that came to us has no edge left to give.
    if (orphaned.length > 0) this.#reapOrphans();
    return all;
  }

  /** A child was found ended by somebody who asked, before epoll told. */
  recordExit(process: Process): void {
    this.#recordExits([{ token: process, reaped: false }]);
  }

  /** How a child ends that the daemon started for itself, just now, and that has no handle. */
  ownChildEnded(pid: number): Promise<WaitEvent> {
    const own = new OwnChild(Pidfd.open(pid));
    own.registration = this.#parts.table.epoll.add(own.pidfd, own);
    this.#ownChildren.set(pid, own);
    return own.ended.promise;
  }

  /** A child is about to be made: until that is over, no unknown one is taken for an orphan. */
  beginSpawn(): PendingSpawn {
    return this.#pendingSpawns.begin(() => this.#reapOrphans());
  }

  /**
   * Leaves a child that has no handle yet to its caller.
   * @param spawn what was seen of it since then is kept
   * @returns to be called when that is over
   */
  reserve(pid: number, spawn: PendingSpawn): () => void {
    this.#reserved.set(pid, this.#pendingSpawns.takeStop(pid, spawn));
    spawn.done();
    return () => {
      this.#reserved.delete(pid);
      this.#reapOrphans(); // it may have hidden some
    };
  }

  /** A child that was reserved has its first handle, and with that what was seen of it before. */
  attach(process: Process): void {
    const pause = this.#reserved.get(process.pid) ?? null;
    if (pause === null) return;
    const batch = new Batch(this.#parts.journal);
    this.#pause(batch, process, pause);
    batch.commit(this.#parts.feed);
  }

  /** A child that was reserved came to nothing: it is reaped when it has ended, and leaves no trace. */
  discard(pid: number): void {
    this.#discarded.add(pid);
  }

  /** Whether a process is a child that the daemon started for itself, or that has not got the handle that it was made for. */
  isReserved(pid: number): boolean {
    if (this.#ownChildren.has(pid) || this.#reserved.has(pid)) return true;
    if (this.#pendingSpawns.size === 0 || this.#parts.table.get(pid) !== undefined) return false;
    return readStat(pid)?.parent === globalThis.process.pid;
  }

  #reapOwnChild(own: OwnChild): void {
    const event = own.pidfd.waitid(WEXITED | WNOHANG);
    if (event === null || !isEnd(event)) return;
    this.#ownChildren.delete(event.siginfo.pid);
    this.#parts.table.stops.take(event.siginfo.pid);
    this.#parts.table.epoll.remove(own.registration!);
    own.pidfd.close();
    own.ended.resolve(event);
  }

  /** A foreign process turned out to be ours. */
  adopt(process: Process): void {
    if (process.relation === 'child') return;
    const batch = new Batch(this.#parts.journal);
    process.relation = 'child';
    // Its former parent may have read the stop that it is in; the kernel does not report that one again.
    if (readStat(process.pid)?.state === 'T') process.state = 'stopped';
    batch.change('adopted', process);
    batch.commit(this.#parts.feed);
    this.drainStops();
  }

  #recordExits(ended: Readiness<Process>[]): void {
    const { journal, feed, adoption } = this.#parts;
    const batch = new Batch(journal);
    const done: Process[] = [];
    for (const { token, reaped } of ended) if (this.#end(batch, token, reaped)) done.push(token);
    batch.commit(feed, (durable) => {
      for (const process of done) {
        if (process.relation === 'foreign') adoption.forget(process);
        if (durable) this.#retire(process);
        else this.#unwritten.add(process);
      }
    });
    for (const { token } of ended) if (token.ending !== null) this.#ended.emit(token);
  }

  /**
   * Peeks at a process that epoll says has ended, and notes what it finds.
   * @returns whether nothing more will come
   */
  #end(batch: Batch, process: Process, hungUp: boolean): boolean {
    if (process.settled) return false;
    const [description] = process.descriptions;
    if (description === undefined) return false;
    const pidfd = description.pidfd!;
    const peeked = peek(pidfd);
    if (peeked === null) return false;
    if (peeked !== 'not our child') {
      if (process.relation === 'foreign') {
        process.relation = 'child';
        batch.change('adopted', process);
      }
      const { siginfo, rusage } = peeked;
      const outcome = this.#withMemory(process, outcomeOf(siginfo) as Outcome);
      this.#note(batch, process, { outcome, siginfo, rusage });
      return true;
    }
    const reaped = hungUp || !this.#parts.tellsReap;
    const outcome = reaped ? this.#withMemory(process, foreignOutcome(pidfd.exitStatus())) : null;
    this.#note(batch, process, { outcome, siginfo: null, rusage: null });
    return reaped;
  }

  /** Whether it was the lack of memory that killed it. */
  #withMemory({ pid }: Process, outcome: Outcome): Outcome {
    if (outcome.reason !== 'killed' || outcome.signal !== 'SIGKILL') return outcome;
    return this.#parts.cgroups.oomKills.hasKilled(pid) ? { ...outcome, oom: true } : outcome;
  }

  #note(batch: Batch, process: Process, facts: Omit<Ending, 'reaped'>): void {
    const first = process.ending === null;
    const reaped = facts.outcome !== null;
    process.end({ ...facts, reaped });
    if (first) batch.change('exited', process, facts);
    // A child's outcome comes with its exit; a foreign process's later, and then it is an event of its own.
    if (reaped && (!first || process.relation === 'foreign')) batch.change('reaped', process, facts);
    if (facts.outcome !== null) this.counts[facts.outcome.reason] += 1;
  }

  #retire(process: Process): void {
    const [description] = process.descriptions;
    if (process.relation === 'child' && description !== undefined) {
      try {
        description.pidfd!.waitid(WEXITED | WNOHANG);
      } catch (error) {
        if (!isErrno(error, 'ECHILD')) throw error;
      }
    }
    this.#parts.table.retire(process);
    this.#retired.emit(process);
  }

  #recovered(): void {
    for (const process of this.#unwritten) this.#retire(process);
    this.#unwritten.clear();
    this.lookAfterChildren();
  }

  readonly #onChildSignal = (): void => {
    if (this.#childSignal !== null) return;
    const wait = this.#lastLook + CHILD_SIGNAL_INTERVAL_MS - performance.now();
    if (wait <= 0) this.lookAfterChildren();
    else
      this.#childSignal = setTimeout(() => {
        this.#childSignal = null;
        this.lookAfterChildren();
      }, wait);
  };

  /** What SIGCHLD asks for: stops, continues, and the ends of children that nobody has a handle on. */
  lookAfterChildren(): void {
    this.#lastLook = performance.now();
    this.drainStops();
    // Those with a handle go the usual way, many at a time; who has none comes after them.
    if (this.wake()) this.#reapOrphans();
    else this.#onChildSignal();
  }

  /**
   * Takes every stop and continue that the kernel holds. A pidfd does not tell of them, and one that is read is gone for
   * all, so the daemon reads each once and keeps for every client what that client has not read.
   */
  drainStops(): void {
    const batch = new Batch(this.#parts.journal);
    for (;;) {
      const event = orNothing(() => waitid(P_ALL, 0, WSTOPPED | WCONTINUED | WNOHANG));
      if (event === null) break;
      const { pid } = event.siginfo;
      const process = this.#parts.table.get(pid);
      if (this.#reserved.has(pid)) this.#reserved.set(pid, event);
      else if (process === undefined) {
        this.#pendingSpawns.keepStop(pid, event);
        this.#parts.table.stops.note(pid, event);
      } else if (process.ending === null) this.#pause(batch, process, event);
    }
    batch.commit(this.#parts.feed);
  }

  #pause(batch: Batch, process: Process, event: WaitEvent): void {
    if (process.relation === 'foreign') {
      process.relation = 'child';
      batch.change('adopted', process);
    }
    process.reportStop(event);
    const { siginfo, rusage } = event;
    const type = siginfo.code === 'CLD_CONTINUED' ? 'continued' : 'stopped';
    batch.change(type, process, { outcome: outcomeOf(siginfo), siginfo, rusage });
  }

  /** Orphans come to a subreaper and to init, whoever they are. Those without a handle leave no trace. */
  #reapOrphans(): void {
    for (;;) {
      const ended = orNothing(() => waitid(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT));
      if (ended === null) {
        this.#pendingSpawns.clearUnknownExit();
        return;
      }
      if (!isEnd(ended)) {
        this.drainStops(); // it hides the ones behind it until it is taken
        continue;
      }
      const { pid } = ended.siginfo;
      const own = this.#ownChildren.get(pid);
      const process = this.#parts.table.get(pid);
      if (own !== undefined) this.#reapOwnChild(own);
      else if (this.#reserved.has(pid)) return;
      else if (process === undefined) {
        if (this.#pendingSpawns.mayInclude(pid)) return; // it hides the ones behind it until that is over
        using reaped = new DisposableStack();
        this.#orphan.emit(pid, reaped);
        orNothing(() => waitid(P_PID, pid, WEXITED | WNOHANG));
        this.#parts.table.stops.take(pid);
        if (!this.#discarded.delete(pid)) this.counts.orphans += 1;
      } else if (this.#unwritten.has(process))
        return; // it hides the ones behind it until the disk is back
      else this.recordExit(process);
    }
  }
}

function foreignOutcome(status: number | null): Outcome {
  if (status !== null) return outcomeOfStatus(status);
  const detail = `this kernel does not tell how another process's child ended (Linux ${since.exitStatus} does)`;
  return { reason: 'unknown', detail };
}

/** @returns `null` where it has not ended; the stop of a traced child stays for {@link Reaper.drainStops} */
function peek(pidfd: Pidfd): WaitEvent | null | 'not our child' {
  try {
    const event = pidfd.waitid(WEXITED | WNOHANG | WNOWAIT);
    return event !== null && isEnd(event) ? event : null;
  } catch (error) {
    if (isErrno(error, 'ECHILD')) return 'not our child';
    throw error;
  }
}

/** @returns `null` for ECHILD too: no children, nothing to take */
function orNothing(wait: () => WaitEvent | null): WaitEvent | null {
  try {
    return wait();
  } catch (error) {
    if (isErrno(error, 'ECHILD')) return null;
    throw error;
  }
}
