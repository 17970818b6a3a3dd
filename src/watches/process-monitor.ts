import type { WatchView } from '../../schemas/watches.ts';
import { listPids } from '../kernel/proc.ts';
import { ProcConnector } from '../kernel/proc-connector.ts';
import { SLICE_MS } from './in-turns.ts';

/** How soon all processes are looked at again, where the kernel does not tell of new ones. */
const SHORTEST_MS = 50;

/** So many times what a look took is rested after it: looking takes a twentieth of a core at most. */
const RESTED = 19;

/** How long a process is a new one: a shell's child becomes its program within that, a container's process moves to its cgroup. */
const NEW_MS = 1000;

/** How long a fork may take to become another program before it is looked at as what it is. */
const FORK_MS = 100;

/** What the kernel does not tell (a move to another cgroup, other arguments) is found after that at the latest. */
const ALL_AGAIN_MS = 10_000;

/**
 * Notices processes as they appear, and later as they change: by the proc connector where the kernel lets us, else by looking through
 * /proc. Only while somebody wants that.
 */
export class ProcessMonitor {
  /** How new processes are noticed: the kernel tells, or /proc is looked through. */
  readonly means: WatchView['by'];
  /** How long was looked through /proc so far, in milliseconds. */
  spentMs = 0;
  readonly #see: (pid: number) => void;
  readonly #gone: (pid: number) => void;
  #connector: ProcConnector | null;
  #timer: NodeJS.Timeout | null = null;
  #forks: NodeJS.Timeout | null = null;
  /** Forks that are to be looked at, and when. */
  readonly #pending = new Map<number, number>();
  /** Pids of the last look through /proc, and since when each is there. */
  #known = new Map<number, number>();
  #allAt = 0;
  /** What of a look is still to be seen. */
  readonly #unseen = new Set<number>();
  #slice: NodeJS.Immediate | null = null;

  /**
   * @param see told of a process that may be new or another
   * @param gone told of one that is not there any more
   */
  constructor(see: (pid: number) => void, gone: (pid: number) => void) {
    this.#see = see;
    this.#gone = gone;
    this.#connector = ProcConnector.open();
    this.means = this.#connector === null ? 'scan' : 'events';
    this.#connector?.start(() => this.#hear());
    // What is there already is for the caller to look at.
    const now = performance.now();
    for (const pid of listPids()) this.#known.set(pid, now - NEW_MS);
    this.#allAt = now;
    this.#rest(0);
  }

  #hear(): void {
    const { events, lost } = this.#connector!.drain();
    for (const { type, pid } of events) {
      if (type === 'fork') this.#pending.set(pid, performance.now() + FORK_MS);
      else this.#pending.delete(pid);
      if (type === 'exec') this.#unseen.add(pid);
      if (type === 'exit') this.#gone(pid);
    }
    if (lost) this.look();
    else if (this.#slice === null) this.#seeUnseen(performance.now(), null);
    if (this.#pending.size > 0) this.#forks ??= setTimeout(() => this.#seeForks(), FORK_MS);
  }

  #seeForks(): void {
    this.#forks = null;
    const now = performance.now();
    for (const [pid, at] of this.#pending) {
      if (at > now) {
        this.#forks = setTimeout(() => this.#seeForks(), at - now);
        break;
      }
      this.#pending.delete(pid);
      this.#unseen.add(pid);
    }
    if (this.#slice === null) this.#seeUnseen(performance.now(), null);
  }

  /** Looks at every process there is. */
  look(): void {
    this.#allAt = Number.NEGATIVE_INFINITY;
    this.#scan();
  }

  #scan(): void {
    const began = performance.now();
    const all = this.means === 'events' || began - this.#allAt >= NEW_MS;
    if (all) this.#allAt = began;
    const known = new Map<number, number>();
    for (const pid of listPids()) {
      const since = this.#known.get(pid) ?? began;
      known.set(pid, since);
      if (all || began - since < NEW_MS) this.#unseen.add(pid);
    }
    for (const pid of this.#known.keys()) if (!known.has(pid)) this.#gone(pid);
    this.#known = known;
    this.#seeUnseen(began, 0);
  }

  /**
   * In slices: each process that is opened costs a write, and there may be thousands.
   * @param spentMs what a look through /proc took so far; `null` where the kernel has told of each
   */
  #seeUnseen(began: number, spentMs: number | null): void {
    this.#slice = null;
    let now = began;
    for (const pid of this.#unseen) {
      if (now - began > SLICE_MS) break;
      this.#unseen.delete(pid);
      this.#see(pid);
      now = performance.now();
    }
    const spent = now - began;
    this.spentMs += spent;
    const total = spentMs === null ? null : spentMs + spent;
    if (this.#unseen.size > 0) this.#slice ??= setImmediate(() => this.#seeUnseen(performance.now(), total));
    else if (total !== null) this.#rest(total);
  }

  #rest(spentMs: number): void {
    const restMs = Math.max(this.means === 'events' ? ALL_AGAIN_MS : SHORTEST_MS, spentMs * RESTED);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#scan(), restMs);
  }

  close(): void {
    this.#connector?.close();
    this.#connector = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#forks !== null) clearTimeout(this.#forks);
    if (this.#slice !== null) clearImmediate(this.#slice);
  }
}
