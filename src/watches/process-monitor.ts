import type { WatchView } from '../../schemas/watches.ts';
import { SLICE_MS } from '../kernel/in-turns.ts';
import { listPids } from '../kernel/proc.ts';
import { ProcConnector } from '../kernel/proc-connector.ts';

/** The shortest time between two scans of /proc, in milliseconds, if the kernel does not report new processes. */
const SHORTEST_MS = 50;

/** A scan is followed by a rest of this many times its own time, so that scans take a twentieth of a core at most. */
const REST_FACTOR = 19;

/** How long a process counts as new, in milliseconds. A shell's child becomes its program meanwhile, a container's process moves to its cgroup. */
const NEW_MS = 1000;

/** How long a fork may take to execute a program before it is matched as it is, in milliseconds. */
const FORK_MS = 100;

/** Changes that the kernel does not report (of the cgroup, of the arguments) are found after this, in milliseconds. */
const ALL_AGAIN_MS = 10_000;

/**
 * Detects processes as they appear, and later as they change: by the proc connector if the daemon may use it, else by scans of /proc. It
 * exists only while there is a watch.
 */
export class ProcessMonitor {
  /** How new processes are detected: by events of the kernel, or by scans of /proc. */
  readonly means: WatchView['by'];
  /** How long the scans of /proc took so far, in milliseconds. */
  spentMs = 0;
  readonly #onSeen: (pid: number) => void;
  readonly #onExited: (pid: number) => void;
  #connector: ProcConnector | null;
  #timer: NodeJS.Timeout | null = null;
  #forks: NodeJS.Timeout | null = null;
  /** Forks that have not executed a program yet, and when each is to be matched. */
  readonly #pending = new Map<number, number>();
  /** The pids of the last scan, and since when each is known. */
  #known = new Map<number, number>();
  #allAt = 0;
  /** The pids of a scan that have not been matched yet. */
  readonly #unseen = new Set<number>();
  #slice: NodeJS.Immediate | null = null;

  /**
   * @param onSeen called for a process that may be new or have changed
   * @param onExited called for a process that has ended
   */
  constructor(onSeen: (pid: number) => void, onExited: (pid: number) => void) {
    this.#onSeen = onSeen;
    this.#onExited = onExited;
    this.#connector = ProcConnector.open();
    this.means = this.#connector === null ? 'scan' : 'events';
    this.#connector?.start(() => this.#readEvents());
    // Processes that exist already are for the caller to scan.
    const now = performance.now();
    for (const pid of listPids()) this.#known.set(pid, now - NEW_MS);
    this.#allAt = now;
    this.#rest(0);
  }

  #readEvents(): void {
    const { events, lost } = this.#connector!.drain();
    for (const { type, pid } of events) {
      if (type === 'fork') this.#pending.set(pid, performance.now() + FORK_MS);
      else this.#pending.delete(pid);
      if (type === 'exec') this.#unseen.add(pid);
      if (type === 'exit') this.#onExited(pid);
    }
    if (lost) this.scanAll();
    else if (this.#slice === null) this.#matchUnseen(performance.now(), null);
    if (this.#pending.size > 0) this.#forks ??= setTimeout(() => this.#matchForks(), FORK_MS);
  }

  #matchForks(): void {
    this.#forks = null;
    const now = performance.now();
    for (const [pid, at] of this.#pending) {
      if (at > now) {
        this.#forks = setTimeout(() => this.#matchForks(), at - now);
        break;
      }
      this.#pending.delete(pid);
      this.#unseen.add(pid);
    }
    if (this.#slice === null) this.#matchUnseen(performance.now(), null);
  }

  /** Scans every process now. */
  scanAll(): void {
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
    for (const pid of this.#known.keys()) if (!known.has(pid)) this.#onExited(pid);
    this.#known = known;
    this.#matchUnseen(began, 0);
  }

  /**
   * Works in slices, because each process that is opened costs a write, and there may be thousands.
   * @param spentMs the time of the scan so far, in milliseconds; `null` if the kernel has reported the processes
   */
  #matchUnseen(began: number, spentMs: number | null): void {
    this.#slice = null;
    let now = began;
    for (const pid of this.#unseen) {
      if (now - began > SLICE_MS) break;
      this.#unseen.delete(pid);
      this.#onSeen(pid);
      now = performance.now();
    }
    const spent = now - began;
    this.spentMs += spent;
    const total = spentMs === null ? null : spentMs + spent;
    if (this.#unseen.size > 0) this.#slice ??= setImmediate(() => this.#matchUnseen(performance.now(), total));
    else if (total !== null) this.#rest(total);
  }

  #rest(spentMs: number): void {
    const restMs = Math.max(this.means === 'events' ? ALL_AGAIN_MS : SHORTEST_MS, spentMs * REST_FACTOR);
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
