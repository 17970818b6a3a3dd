import type { Outcome } from '../../schemas/common.ts';
import type { Cgroups } from '../cgroups/cgroups.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { type Readiness, Wakeup } from '../kernel/epoll.ts';
import { since } from '../kernel/features.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { isEnd, type WaitEvent, WEXITED, WNOHANG, WNOWAIT } from '../kernel/waitid.ts';
import { Listeners } from '../model/listeners.ts';
import { outcomeOf, outcomeOfStatus } from '../model/outcome.ts';
import type { Ending, Process } from '../model/process.ts';
import type { Adoption } from './adoption.ts';
import { HandlelessChildren } from './handleless-children.ts';
import { OwnChild } from './own-child.ts';
import { ParentWatch } from './parent-watch.ts';
import type { PendingSpawn } from './pending-spawns.ts';
import type { ProcessTable } from './process-table.ts';
import { Stops } from './stops.ts';

/** SIGCHLD is answered at once, but under load no more often than this, in milliseconds. */
const CHILD_SIGNAL_INTERVAL_MS = 20;

export interface ReaperParts {
  table: ProcessTable;
  journal: Journal;
  adoption: Adoption;
  feed: EventSink;
  cgroups: Cgroups;
  /** Whether the kernel reports a reap by EPOLLHUP (6.9), and the exit status by PIDFD_GET_INFO (6.15). */
  tellsReap: boolean;
}

/**
 * The way of an exit: epoll reports it, the daemon peeks at the status, the journal writes it, and only then is the status taken from
 * the kernel. So the status always exists somewhere.
 */
export class Reaper {
  readonly #parts: ReaperParts;
  readonly #children: HandlelessChildren;
  readonly #stops: Stops;
  /** Processes whose exit was reported, but is not on disk yet. They stay zombies, and in memory, until it is. */
  readonly #unwritten = new Set<Process>();
  #childSignal: NodeJS.Timeout | null = null;
  #lastLook = 0;
  readonly #retired = new Listeners<[process: Process]>();
  readonly #ended = new Listeners<[process: Process]>();
  readonly #reaped = new Listeners<[processes: readonly Process[]]>();
  readonly #counts = { exited: 0, killed: 0, dumped: 0, unknown: 0 };

  constructor(parts: ReaperParts) {
    this.#parts = parts;
    this.#children = new HandlelessChildren({
      table: parts.table,
      recordExit: (process) => {
        if (this.#unwritten.has(process)) return false;
        this.recordExit(process);
        return true;
      },
      drainStops: () => this.drainStops(),
    });
    this.#stops = new Stops({ ...parts, children: this.#children });
  }

  /** How many processes have ended, by reason, and how many orphans have been reaped. */
  get counts(): Readonly<Record<Outcome['reason'] | 'orphans', number>> {
    return { ...this.#counts, orphans: this.#children.orphans };
  }

  /** Subscribes to processes of which nothing more will be reported. @returns a function that ends the subscription */
  onRetired(listener: (process: Process) => void): () => void {
    return this.#retired.on(listener);
  }

  /** Subscribes to processes that have ended, once the end is written. @returns a function that ends the subscription */
  onEnded(listener: (process: Process) => void): () => void {
    return this.#ended.on(listener);
  }

  /** Subscribes to children that were reaped, many at a time. @returns a function that ends the subscription */
  onReaped(listener: (processes: readonly Process[]) => void): () => void {
    return this.#reaped.on(listener);
  }

  /** As {@link HandlelessChildren.onOrphan}. */
  onOrphan(listener: (pid: number, reaped: DisposableStack) => void): () => void {
    return this.#children.onOrphan(listener);
  }

  /** As {@link HandlelessChildren.ownChildEnded}. */
  ownChildEnded(pid: number): Promise<WaitEvent> {
    return this.#children.ownChildEnded(pid);
  }

  /** As {@link HandlelessChildren.beginSpawn}. */
  beginSpawn(): PendingSpawn {
    return this.#children.beginSpawn();
  }

  /** As {@link HandlelessChildren.reserve}. */
  reserve(pid: number, spawn: PendingSpawn): () => void {
    return this.#children.reserve(pid, spawn);
  }

  /** As {@link HandlelessChildren.discard}. */
  discard(pid: number): void {
    this.#children.discard(pid);
  }

  /** As {@link HandlelessChildren.isReserved}. */
  isReserved(pid: number): boolean {
    return this.#children.isReserved(pid);
  }

  /** As {@link Stops.attach}: a reserved child has its first handle. */
  attach(process: Process): void {
    this.#stops.attach(process);
  }

  /** As {@link Stops.adopt}. */
  adopt(process: Process): void {
    this.#stops.adopt(process);
  }

  /** As {@link Stops.drain}. */
  drainStops(): void {
    this.#stops.drain();
  }

  /** Begins to look after children. */
  start(): void {
    const { table, journal } = this.#parts;
    table.epoll.start(() => this.wake());
    journal.onRecovered(() => this.#recovered());
    // Before anything else can end: with SIGCHLD ignored, which exec hands down, the kernel would discard every status.
    process.on('SIGCHLD', this.#onChildSignal);
    this.lookAfterChildren();
  }

  stop(): void {
    process.off('SIGCHLD', this.#onChildSignal);
    if (this.#childSignal !== null) clearTimeout(this.#childSignal);
    this.#parts.table.epoll.stop();
  }

  /**
   * Takes what epoll has ready.
   * @returns whether that was all; if not, the event loop wakes it again
   */
  wake(): boolean {
    const { table, adoption } = this.#parts;
    const ended: Readiness<Process>[] = [];
    const orphaned: Process[] = [];
    const { ready, all } = table.epoll.drain();
    for (const { token, reaped } of ready) {
      if (token instanceof Wakeup) token.ready();
      else if (token instanceof OwnChild) this.#children.reapOwn(token);
      else if (token instanceof ParentWatch) orphaned.push(...adoption.ended(token));
      else ended.push({ token, reaped });
    }
    this.#recordExits(ended);
    for (const child of orphaned) if (!child.isReaped && adoption.follow(child)) this.adopt(child);
    // A zombie that the daemon has inherited gives no more edge.
    if (orphaned.length > 0) this.#children.reap();
    return all;
  }

  /** Records the exit of a child that was found ended before epoll reported it. */
  recordExit(process: Process): void {
    this.#recordExits([{ token: process, reaped: false }]);
  }

  #recordExits(ended: Readiness<Process>[]): void {
    const { journal, feed, adoption } = this.#parts;
    const batch = new Batch(journal);
    const done: Process[] = [];
    let isDurable = false;
    for (const { token, reaped } of ended) if (this.#end(batch, token, reaped)) done.push(token);
    batch.commit(feed, (durable) => {
      isDurable = durable;
      for (const process of done) {
        if (process.relation === 'foreign') adoption.forget(process);
        if (durable) this.#retire(process);
        else this.#unwritten.add(process);
      }
    });
    for (const { token } of ended) if (token.ending !== null) this.#ended.emit(token);
    if (isDurable) this.#emitReaped(done);
  }

  #emitReaped(done: Iterable<Process>): void {
    const children = [...done].filter(({ relation }) => relation === 'child');
    if (children.length > 0) this.#reaped.emit(children);
  }

  /**
   * Peeks at a process that epoll reports as ended, and records what it finds.
   * @returns whether nothing more will be reported of it
   */
  #end(batch: Batch, process: Process, hungUp: boolean): boolean {
    if (process.isReaped) return false;
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
      const hasCgroup = this.#parts.cgroups.has(process.id);
      process.remains = { cgroup: hasCgroup, strays: process.remains?.strays ?? [] };
      this.#record(batch, process, { outcome, siginfo, rusage });
      return true;
    }
    const reaped = hungUp || !this.#parts.tellsReap;
    process.remains = null;
    const outcome = reaped ? this.#withMemory(process, foreignOutcome(pidfd.exitStatus())) : null;
    this.#record(batch, process, { outcome, siginfo: null, rusage: null });
    return reaped;
  }

  /** Adds to an outcome whether the OOM killer sent the SIGKILL. */
  #withMemory({ pid }: Process, outcome: Outcome): Outcome {
    if (outcome.reason !== 'killed' || outcome.signal !== 'SIGKILL') return outcome;
    return this.#parts.cgroups.oomKills.hasKilled(pid) ? { ...outcome, oom: true } : outcome;
  }

  #record(batch: Batch, process: Process, facts: Omit<Ending, 'reaped'>): void {
    const isFirst = process.ending === null;
    const reaped = facts.outcome !== null;
    process.end({ ...facts, reaped });
    const ending = process.ending!;
    if (isFirst) batch.change('exited', process, ending);
    // The outcome of a child is in its exit; that of a foreign process is known later, and then is an event of its own.
    if (reaped && (!isFirst || process.relation === 'foreign')) batch.change('reaped', process, ending);
    if (facts.outcome !== null) this.#counts[facts.outcome.reason] += 1;
  }

  #retire(process: Process): void {
    const [description] = process.descriptions;
    if (process.relation === 'child' && description !== undefined) description.pidfd!.askWaitid(WEXITED | WNOHANG);
    this.#parts.table.retire(process);
    this.#retired.emit(process);
  }

  #recovered(): void {
    const written = [...this.#unwritten];
    for (const process of written) this.#retire(process);
    this.#unwritten.clear();
    this.#emitReaped(written);
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

  /** Does what SIGCHLD asks for: takes stops, continues, and the exits of children without a handle. */
  lookAfterChildren(): void {
    this.#lastLook = performance.now();
    this.drainStops();
    // Children with a handle first, many at a time.
    if (this.wake()) this.#children.reap();
    else this.#onChildSignal();
  }
}

function foreignOutcome(status: number | null): Outcome {
  if (status !== null) return outcomeOfStatus(status);
  const detail = `this kernel does not tell how another process's child ended (Linux ${since.exitStatus} does)`;
  return { reason: 'unknown', detail };
}

/** @returns `null` if it has not ended; the stop of a traced child stays for {@link Stops.drain} */
function peek(pidfd: Pidfd): WaitEvent | null | 'not our child' {
  const event = pidfd.askWaitid(WEXITED | WNOHANG | WNOWAIT);
  if (event === 'ECHILD') return 'not our child';
  return event !== null && event !== 'EAGAIN' && isEnd(event) ? event : null;
}
