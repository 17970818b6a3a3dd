import type { Cgroups } from '../cgroups/cgroups.ts';
import type { Deadline, Deadlines } from '../deadlines/deadlines.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { hasEnded, type ProcStat, readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Census } from './census.ts';
import { Search } from './search.ts';
import { mayBeLeft, membersOf, rootsOf, straysOf } from './survivors.ts';
import { watchSurvivor } from './watch-survivor.ts';

/** How soon it checks again where nothing reports the next change, in milliseconds: the interval doubles with each check. */
const SHORTEST_CHECK_MS = 5;
const LONGEST_CHECK_MS = 1280;

/** An ended child of which something may be left. */
interface Unsettled {
  process: Process;
  /** Ends the watch on a survivor or on the cgroup, which reports the next change; `null` without one. */
  unwatch: (() => void) | null;
  /** The next check, where nothing reports a change. */
  retry: Deadline | null;
  delayMs: number;
  /** The pids of the zombies that the last search has found instead of survivors. */
  zombies: string;
}

/** A live process whose descendants are to be known when it ends. */
interface Advance {
  process: Process;
  startTicks: number;
}

export interface SettlementsParts {
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  feed: EventSink;
  cgroups: Cgroups;
  deadlines: Deadlines;
  /** The pidfds of survivors get lower numbers than this. */
  descriptors: number;
}

/**
 * Reports `settled`: an ended child has left nothing behind. One cheap system call shows that for nearly all of them as soon as they are
 * reaped. For the others a search of /proc finds a survivor, and its pidfd tells when to check again. A process with a cgroup of its own
 * is settled when that is empty, which the kernel reports.
 *
 * A descendant that left the session, and whose parent ended before a search, cannot be found.
 */
export class Settlements {
  readonly #parts: SettlementsParts;
  readonly #unsettled = new Map<number, Unsettled>();
  /** Those that hold a pidfd of a survivor, the oldest first. */
  readonly #holding = new Set<Unsettled>();
  /** Those of which nothing reports the next change. */
  readonly #unwatched = new Set<Unsettled>();
  /** Those to be checked in the next turn of the event loop. */
  readonly #due = new Set<Unsettled>();
  #turn: NodeJS.Immediate | null = null;
  #isOrphanReaped = false;
  readonly #search: Search<Unsettled | Advance>;
  #isStopped = false;

  constructor(parts: SettlementsParts) {
    this.#parts = parts;
    this.#search = new Search((asking, census) => {
      if ('startTicks' in asking) this.#lookInAdvance(asking, census);
      else if (this.#isTracked(asking)) this.#findSurvivor(asking, census);
    });
    parts.reaper.onReaped((processes) => this.#begin(processes));
    // The last member of a group is often an orphan, whose number is free only now.
    parts.reaper.onOrphan((_, reaped) => {
      if (this.#unwatched.size === 0) return;
      reaped.defer(() => {
        this.#isOrphanReaped = true;
        this.#schedule();
      });
    });
  }

  /** How many ended children have left something. */
  get size(): number {
    return this.#unsettled.size;
  }

  /** Takes over the processes that an earlier daemon left unsettled. */
  resume(): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    for (const [process, found] of Map.groupBy(journal.queries.unsettled(), ({ handle }) => handle.process)) {
      const handles = found.map(({ handle }) => handle);
      if (found.every(({ boot }) => boot === journal.bootId)) this.#track(process);
      else batch.settle(process, handles);
    }
    batch.commit(feed);
  }

  stop(): void {
    this.#isStopped = true;
    this.#search.stop();
    if (this.#turn !== null) clearImmediate(this.#turn);
    for (const unsettled of this.#unsettled.values()) this.#release(unsettled);
  }

  /** Finds the descendants of a live child now, so that those are known that leave its session and survive their parents. */
  async lookInAdvance(process: Process): Promise<void> {
    if (process.ending !== null || this.#parts.cgroups.has(process.id)) return;
    const stat = readStat(process.pid);
    if (stat !== null) await this.#search.ask({ process, startTicks: stat.startTicks });
  }

  /** Forgets an ended process that has no handle and no parked call left. */
  closed({ id }: Pick<Process, 'id'>): void {
    const unsettled = this.#unsettled.get(id);
    if (unsettled === undefined || unsettled.process.isWatched || this.#parts.journal.queries.holds(id)) return;
    this.#drop(unsettled);
  }

  /** Closes the oldest pidfd of a survivor, and checks at intervals instead. @returns whether there was one */
  giveUp(): boolean {
    const [oldest] = this.#holding;
    if (oldest === undefined) return false;
    this.#release(oldest);
    this.#retry(oldest);
    return true;
  }

  /** Takes children that were reaped. */
  #begin(processes: readonly Process[]): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    for (const process of processes)
      if (this.#isOver(process)) batch.settle(process, process.handles);
      else if (process.handles.size > 0 || process.isWatched) this.#track(process);
    batch.commit(feed);
  }

  #track(process: Process): void {
    const unsettled = { process, unwatch: null, retry: null, delayMs: SHORTEST_CHECK_MS, zombies: '' };
    this.#unsettled.set(process.id, unsettled);
    this.#parts.journal.queries.shared.set(process.id, process);
    this.#unwatched.add(unsettled);
    this.#check(unsettled);
  }

  #isOver(process: Process): boolean {
    if (process.remains?.cgroup === true) return !this.#parts.cgroups.isPopulated(process.id);
    return !rootsOf(process).some(mayBeLeft);
  }

  #check(unsettled: Unsettled): void {
    this.#due.add(unsettled);
    this.#schedule();
  }

  #schedule(): void {
    if (!this.#isStopped) this.#turn ??= setImmediate(() => this.#checkDue());
  }

  #checkDue(): void {
    this.#turn = null;
    // A survivor that has just ended may be an orphan, and its group lives until that is reaped.
    if (this.#due.size > 0) this.#parts.reaper.lookAfterChildren();
    const due = [...this.#due];
    const others = this.#isOrphanReaped ? [...this.#unwatched].filter((each) => !this.#due.has(each)) : [];
    this.#due.clear();
    this.#isOrphanReaped = false;
    this.#settle([...due, ...others].filter(({ process }) => this.#isOver(process)));
    for (const unsettled of due)
      if (!this.#isTracked(unsettled)) continue;
      else if (unsettled.process.remains?.cgroup === true) this.#watchCgroup(unsettled);
      else void this.#search.ask(unsettled);
  }

  #watchCgroup(unsettled: Unsettled): void {
    if (unsettled.unwatch !== null) return;
    const unwatch = this.#parts.cgroups.watch(unsettled.process.id, () => this.#check(unsettled));
    if (unwatch === null) this.#retry(unsettled);
    else {
      this.#hold(unsettled, unwatch);
      this.#check(unsettled); // it may have become empty before the watch
    }
  }

  #findSurvivor(unsettled: Unsettled, census: Census): void {
    const members = [...this.#remember(unsettled.process, null, census)];
    const survivors = members.filter(([, stat]) => !hasEnded(stat));
    // Zombies that others do not reap keep the number in use. A second search makes sure that no new process was missed.
    const zombies = survivors.length > 0 ? '' : members.filter((member) => this.#isUnreaped(member)).join();
    const isConfirmed = zombies !== '' && zombies === unsettled.zombies;
    unsettled.zombies = zombies;
    if (isConfirmed || this.#isOver(unsettled.process)) this.#settle([unsettled]);
    else if (!this.#watchFirst(unsettled, survivors)) this.#retry(unsettled);
  }

  /** Watches the first survivor that has not ended meanwhile. @returns false if there is none, or no descriptor is free */
  #watchFirst(unsettled: Unsettled, survivors: readonly [pid: number, stat: ProcStat][]): boolean {
    const { table, descriptors } = this.#parts;
    for (const [pid, stat] of survivors) {
      const unwatch = watchSurvivor(pid, stat, table, descriptors, () => this.#survivorEnded(unsettled));
      if (unwatch === 'unwatchable') return false;
      if (unwatch === 'ended') continue;
      this.#hold(unsettled, unwatch);
      this.#holding.add(unsettled);
      return true;
    }
    return false;
  }

  /** Whether a process is a zombie that the daemon does not reap by itself soon. */
  #isUnreaped([pid, stat]: [number, ProcStat]): boolean {
    return hasEnded(stat) && (stat.parent !== globalThis.process.pid || this.#parts.table.get(pid) !== undefined);
  }

  #lookInAdvance({ process, startTicks }: Advance, census: Census): void {
    if (process.ending === null || process.remains !== null) this.#remember(process, startTicks, census);
  }

  /**
   * Finds the members of a process, and writes down those that could not be found again by its session.
   * @param startTicks of the process while it lives
   */
  #remember(process: Process, startTicks: number | null, census: Census): Map<number, ProcStat> {
    const { journal } = this.#parts;
    const members = membersOf(rootsOf(process, startTicks), census);
    const strays = straysOf(process, members, census);
    if (JSON.stringify(strays) === JSON.stringify(process.remains?.strays ?? [])) return members;
    process.remains = { cgroup: false, strays };
    if (process.ending === null ? process.handles.size > 0 : journal.queries.holds(process.id))
      journal.commit([{ write: 'process', process }]);
    return members;
  }

  #survivorEnded(unsettled: Unsettled): void {
    this.#release(unsettled);
    this.#check(unsettled);
  }

  #hold(unsettled: Unsettled, unwatch: () => void): void {
    this.#release(unsettled);
    unsettled.unwatch = unwatch;
    unsettled.delayMs = SHORTEST_CHECK_MS;
    unsettled.zombies = '';
    this.#unwatched.delete(unsettled);
  }

  /** Ends the watch, and the next check. */
  #release(unsettled: Unsettled): void {
    const { unwatch, retry } = unsettled;
    unsettled.unwatch = null;
    unsettled.retry = null;
    unwatch?.();
    if (retry !== null) this.#parts.deadlines.cancel(retry);
    this.#holding.delete(unsettled);
    this.#unwatched.add(unsettled);
  }

  /** Checks later. The times are multiples of the interval, so that one search serves many. */
  #retry(unsettled: Unsettled): void {
    if (this.#isStopped || unsettled.retry !== null) return;
    const { delayMs } = unsettled;
    const at = (Math.floor(boottimeMs() / delayMs) + 1) * delayMs;
    unsettled.retry = this.#parts.deadlines.add(at, () => {
      unsettled.retry = null;
      this.#check(unsettled);
    });
    unsettled.delayMs = Math.min(2 * delayMs, LONGEST_CHECK_MS);
  }

  /** Whether it still is unsettled. */
  #isTracked(unsettled: Unsettled): boolean {
    return this.#unsettled.get(unsettled.process.id) === unsettled;
  }

  #settle(settled: readonly Unsettled[]): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    for (const unsettled of settled) {
      batch.settle(unsettled.process, journal.queries.handlesOf(unsettled.process));
      this.#drop(unsettled);
    }
    batch.commit(feed);
  }

  #drop(unsettled: Unsettled): void {
    const { id } = unsettled.process;
    this.#release(unsettled);
    this.#unwatched.delete(unsettled);
    this.#due.delete(unsettled);
    this.#search.cancel(unsettled);
    this.#unsettled.delete(id);
    this.#parts.journal.queries.shared.delete(id);
  }
}
