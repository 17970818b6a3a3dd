import type { Outcome, Rusage, Siginfo } from '../../schemas/common.ts';
import type { HandleView } from '../../schemas/handles.ts';
import type { Registration } from '../kernel/epoll.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { Lifetime, Overdue } from './lifetime.ts';
import { Listeners } from './listeners.ts';
import { KEPT_ARGV_BYTES, type ShownArgv, shownArgv } from './shown-argv.ts';
import { StopReports } from './stop-reports.ts';

/** `child`: the daemon is the parent, by a spawn or by adoption. `foreign`: another process is. */
export type Relation = HandleView['relation'];
export type ProcessState = HandleView['state'];

/** The end of a process. A foreign process has no outcome until its parent has reaped it. */
export interface Ending {
  outcome: Outcome | null;
  siginfo: Siginfo | null;
  rusage: Rusage | null;
  /** Whether the kernel has released the process, so that no more can be learnt from it. */
  reaped: boolean;
}

/** A descendant outside of the group and the session of the process, or the session of such descendants. */
export interface Stray {
  /** Its pid. Its group and its session have the same number, if it leads any. */
  pid: number;
  /** Its start in clock ticks since boot; `null` if it has ended, and only its session is left. */
  startTicks: number | null;
}

/** What may be left of a child after its end. */
export interface Remains {
  /** Whether it has a cgroup of its own, which alone decides then. */
  cgroup: boolean;
  strays: readonly Stray[];
}

export interface ProcessFacts {
  /** The journal's number for the process. */
  id: number;
  pid: number;
  /** The inode number in pidfs, unique per boot; `null` before Linux 6.9. */
  inode: string | null;
  /** Unix milliseconds, for display only. */
  startedAt: number;
  argv: readonly string[];
  relation: Relation;
  lifetime?: Lifetime | null;
  overdue?: Overdue;
}

/** One process of the kernel. Any number of handles may refer to it. */
export class Process {
  readonly id: number;
  readonly pid: number;
  readonly inode: string | null;
  readonly startedAt: number;
  /** The start as views and events show it, formatted once. */
  readonly startedAtText: string;
  readonly argv: readonly string[];
  /** The part of the arguments that views and events show. */
  readonly shown: ShownArgv;
  relation: Relation;
  state: ProcessState = 'running';
  ending: Ending | null = null;
  /** When the end was first written, on the journal's clock; `null` before that. */
  endedAt: number | null = null;
  /** How long it may live; `null` where that has no bound. */
  lifetime: Lifetime | null;
  /** When its lease expires, in milliseconds on CLOCK_BOOTTIME; `null` while the lease is held, and without one. */
  leaseExpiresAt: number | null = null;
  overdue: Overdue;
  /** What may be left of an ended child, `null` once nothing is. While it lives, what a search has found in advance. */
  remains: Remains | null = null;

  /** The open handles of all clients. Empty for an ended process that was read from the journal. */
  readonly handles = new Set<Handle>();
  /** The open file descriptions. Epoll watches the pidfd of the first one. */
  readonly descriptions = new Set<OpenDescription>();
  registration: Registration | null = null;

  readonly stops = new StopReports();
  readonly #changed = new Listeners();

  constructor(facts: ProcessFacts) {
    this.id = facts.id;
    this.pid = facts.pid;
    this.inode = facts.inode;
    this.startedAt = facts.startedAt;
    this.startedAtText = new Date(facts.startedAt).toISOString();
    this.argv = shownArgv(facts.argv, KEPT_ARGV_BYTES).argv;
    this.shown = shownArgv(facts.argv);
    this.relation = facts.relation;
    this.lifetime = facts.lifetime ?? null;
    this.overdue = facts.overdue ?? {};
  }

  attach(handle: Handle): void {
    this.handles.add(handle);
    this.stops.hold(handle.client);
  }

  detach(handle: Handle): void {
    if (this.handles.delete(handle)) this.stops.release(handle.client);
  }

  /** Takes a stop or a continue that the kernel has reported. */
  reportStop(event: WaitEvent): void {
    this.state = event.siginfo.code === 'CLD_CONTINUED' ? 'running' : 'stopped';
    this.stops.report(event);
  }

  /** Records the end. The outcome gets the marks of the deadlines that had passed. */
  end(ending: Ending): void {
    this.state = 'exited';
    this.ending = { ...ending, outcome: ending.outcome && { ...ending.outcome, ...this.overdue } };
  }

  /** Whether it has ended, and no more will be reported of it. */
  get isReaped(): boolean {
    return this.ending?.reaped === true;
  }

  /** Whether it has ended, and nothing that it started is left as far as the daemon can know. A foreign process never is. */
  get isSettled(): boolean {
    return this.relation === 'child' && this.isReaped && this.remains === null;
  }

  /** Whether calls are parked on it. */
  get isWatched(): boolean {
    return this.#changed.size > 0;
  }

  /** Subscribes to changes of the process: stopped, adopted, ended, reaped, settled. @returns a function that ends the subscription */
  watch(callback: () => void): () => void {
    return this.#changed.on(callback);
  }

  /** Reports a change to all who watch. */
  changed(): void {
    this.#changed.emit();
  }
}

export type Stream = 'stdout' | 'stderr';

/** What stdin of a spawned process is, where later requests can write to it. */
export type InputKind = 'pipe' | 'tty';

/** The captured streams of a spawned process. */
export interface Output {
  readonly streams: readonly Stream[];
  /** Whether all of them have ended, and the event `output` has been written. */
  ended: boolean;
}

/**
 * An open file description on a process, to which O_NONBLOCK belongs. Handles made with `dup` share it. A parked wait retains it, so it
 * may outlive the handle, as a file outlives its descriptor under a blocked system call.
 */
export class OpenDescription {
  /** The journal's number for the description. */
  readonly id: number;
  readonly process: Process;
  /** The output that the spawn captures. An `open` of the same process has none. */
  readonly output: Output;
  /** The input that the spawn has made; `null` for none. */
  readonly input: InputKind | null;
  #pidfd: Pidfd | null;
  #nonblocking: boolean;
  #references = 0;

  /** @param pidfd `null` if the process has ended and the descriptor is closed */
  constructor(
    id: number,
    process: Process,
    pidfd: Pidfd | null,
    nonblocking: boolean,
    output: Output = { streams: [], ended: true },
    input: InputKind | null = null,
  ) {
    this.id = id;
    this.process = process;
    this.output = output;
    this.input = input;
    this.#pidfd = pidfd;
    this.#nonblocking = nonblocking;
    if (pidfd !== null) process.descriptions.add(this);
  }

  /** The descriptor; `null` once the process has ended. */
  get pidfd(): Pidfd | null {
    return this.#pidfd;
  }

  /** The flag of the descriptor while that is open, and a setting of the record after that. */
  get nonblocking(): boolean {
    return this.#nonblocking;
  }

  set nonblocking(on: boolean) {
    if (this.#pidfd !== null) this.#pidfd.nonblocking = on;
    this.#nonblocking = on;
  }

  retain(): void {
    this.#references += 1;
  }

  /** Drops a reference. @returns whether it was the last one */
  drop(): boolean {
    this.#references -= 1;
    return this.#references === 0;
  }

  /** Hands the descriptor to the caller, who closes or keeps it. */
  takePidfd(): Pidfd | null {
    const pidfd = this.#pidfd;
    this.#pidfd = null;
    this.process.descriptions.delete(this);
    return pidfd;
  }
}

export type Labels = Readonly<Record<string, string>>;

/** The way in which a handle ended. Its id answers ESTALE after that. */
export type EndedBy = 'closed' | 'expired';

export interface HandleFacts {
  id: string;
  client: string;
  description: OpenDescription;
  /** No other open handle of the client has it; `null` for none. */
  name: string | null;
  labels: Labels;
  /** Unix milliseconds. */
  createdAt: number;
  /** The event cursor from before its first event. */
  seq: number;
  /** The watch that opened it; `null` if none did. */
  watch?: string | null;
}

/** One client's descriptor on one process. */
export class Handle {
  readonly id: string;
  readonly client: string;
  readonly description: OpenDescription;
  readonly createdAt: number;
  readonly seq: number;
  readonly watch: string | null;
  name: string | null;
  labels: Labels;

  constructor(facts: HandleFacts) {
    this.id = facts.id;
    this.client = facts.client;
    this.description = facts.description;
    this.name = facts.name;
    this.labels = facts.labels;
    this.createdAt = facts.createdAt;
    this.seq = facts.seq;
    this.watch = facts.watch ?? null;
  }

  get process(): Process {
    return this.description.process;
  }
}
