import type { Outcome, Rusage, Siginfo } from '../../schemas/common.ts';
import type { HandleView } from '../../schemas/handles.ts';
import type { Registration } from '../kernel/epoll.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import { KEPT_ARGV_BYTES, type ShownArgv, shownArgv } from './shown-argv.ts';
import { StopReports } from './stop-reports.ts';

/** Whose child a process is: the daemon's own (spawned or adopted), or somebody else's. */
export type Relation = HandleView['relation'];
export type ProcessState = HandleView['state'];

/** What is known of an end. A foreign process that its parent has not reaped yet has no outcome. */
export interface Ending {
  outcome: Outcome | null;
  siginfo: Siginfo | null;
  rusage: Rusage | null;
  /** Nobody can collect it from the kernel any more. */
  reaped: boolean;
}

export interface ProcessFacts {
  /** The journal's number for it. */
  id: number;
  pid: number;
  /** Of pidfs, unique per boot; `null` before Linux 6.9. */
  inode: string | null;
  /** Unix milliseconds, for show. */
  startedAt: number;
  argv: readonly string[];
  relation: Relation;
}

/** One process of the kernel's, however many handles are held on it. */
export class Process {
  readonly id: number;
  readonly pid: number;
  readonly inode: string | null;
  readonly startedAt: number;
  /** The start as clients see it: every event tells it. */
  readonly startedAtText: string;
  readonly argv: readonly string[];
  /** What views and events show of them. */
  readonly shown: ShownArgv;
  relation: Relation;
  state: ProcessState = 'running';
  ending: Ending | null = null;
  /** When the journal was first told of the end, on its clock; `null` before, and where it was read back from there. */
  endedAt: number | null = null;

  /** Open handles, of all clients. Empty for an ended process that was read back from the journal. */
  readonly handles = new Set<Handle>();
  /** Open file descriptions; the first one's pidfd is the one that epoll watches. */
  readonly descriptions = new Set<OpenDescription>();
  registration: Registration | null = null;

  readonly stops = new StopReports();
  readonly #watchers = new Set<() => void>();

  constructor(facts: ProcessFacts) {
    this.id = facts.id;
    this.pid = facts.pid;
    this.inode = facts.inode;
    this.startedAt = facts.startedAt;
    this.startedAtText = new Date(facts.startedAt).toISOString();
    this.argv = shownArgv(facts.argv, KEPT_ARGV_BYTES).argv;
    this.shown = shownArgv(facts.argv);
    this.relation = facts.relation;
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

  end(ending: Ending): void {
    this.state = 'exited';
    this.ending = ending;
  }

  /** Whether it has ended and nothing more will be learnt of it. */
  get isReaped(): boolean {
    return this.ending?.reaped === true;
  }

  /**
   * Calls back after every change: paused, adopted, ended, reaped. First come, first called.
   * @returns the end of it
   */
  watch(callback: () => void): () => void {
    const watcher = (): void => callback();
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  changed(): void {
    for (const watcher of this.#watchers) watcher();
  }
}

export type Stream = 'stdout' | 'stderr';

/** What of a spawned process is captured. */
export interface Output {
  readonly streams: readonly Stream[];
  /** Nobody writes any more, and this has been told. */
  ended: boolean;
}

/**
 * An open file description on a process: what O_NONBLOCK belongs to. Handles made with `dup` share it, and so does a wait
 * that is parked on it, which is why it may outlive the handle, as a file does under a blocked system call.
 */
export class OpenDescription {
  /** The journal's number for it. */
  readonly id: number;
  readonly process: Process;
  /** Belongs to what the spawn made, so that handles made with `dup` share it, and an `open` of the same process has none. */
  readonly output: Output;
  #pidfd: Pidfd | null;
  #nonblocking: boolean;
  #references = 0;

  /** @param pidfd `null` where the process has ended and the descriptor was given up */
  constructor(
    id: number,
    process: Process,
    pidfd: Pidfd | null,
    nonblocking: boolean,
    output: Output = { streams: [], ended: true },
  ) {
    this.id = id;
    this.process = process;
    this.output = output;
    this.#pidfd = pidfd;
    this.#nonblocking = nonblocking;
    if (pidfd !== null) process.descriptions.add(this);
  }

  /** While the process lives. */
  get pidfd(): Pidfd | null {
    return this.#pidfd;
  }

  /** The real flag while the process lives; a setting of the record after that. */
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

  /** @returns true when that was the last reference */
  drop(): boolean {
    this.#references -= 1;
    return this.#references === 0;
  }

  /** Gives the descriptor away, to be closed or kept by the caller. */
  takePidfd(): Pidfd | null {
    const pidfd = this.#pidfd;
    this.#pidfd = null;
    this.process.descriptions.delete(this);
    return pidfd;
  }
}

export type Labels = Readonly<Record<string, string>>;

/** What ended a handle; its id then answers ESTALE. */
export type EndedBy = 'closed' | 'expired';

export interface HandleFacts {
  id: string;
  client: string;
  description: OpenDescription;
  labels: Labels;
  /** Unix milliseconds. */
  createdAt: number;
  /** The event cursor from before its first event. */
  seq: number;
  /** The watch that opened it, if one has. */
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
  labels: Labels;

  constructor(facts: HandleFacts) {
    this.id = facts.id;
    this.client = facts.client;
    this.description = facts.description;
    this.labels = facts.labels;
    this.createdAt = facts.createdAt;
    this.seq = facts.seq;
    this.watch = facts.watch ?? null;
  }

  get process(): Process {
    return this.description.process;
  }
}
