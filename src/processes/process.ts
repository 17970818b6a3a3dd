import type { Handle } from '../handles/handle.ts';
import type { Registration } from '../kernel/epoll.ts';
import type { Rusage, Siginfo, WaitEvent } from '../kernel/waitid.ts';
import type { Description } from './description.ts';
import type { Outcome } from './outcome.ts';
import { KEPT_ARGV_BYTES, type ShownArgv, shownArgv } from './shown-argv.ts';

/** Whose child a process is: the daemon's own (spawned or adopted), or somebody else's. */
export type Relation = 'child' | 'foreign';
export type ProcessState = 'running' | 'stopped' | 'exited';

/** What is known of an end. A foreign process that its parent has not reaped yet has no outcome. */
export interface Ending {
  outcome: Outcome | null;
  siginfo: Siginfo | null;
  rusage: Rusage | null;
  /** Nobody can collect it from the kernel any more. */
  reaped: boolean;
}

/** What one client has not read yet of a child's stops and continues: never both, as in the kernel. */
interface Holder {
  holds: number;
  unread: WaitEvent | null;
}

export interface Pauses {
  /** The stop that it is in. */
  stop: WaitEvent | null;
  /** By client. */
  unread: Record<string, WaitEvent>;
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
  readonly descriptions = new Set<Description>();
  registration: Registration | null = null;

  /** The stop it is in, for clients that come later. */
  #stop: WaitEvent | null = null;
  readonly #holders = new Map<string, Holder>();
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
    this.hold(handle.client);
  }

  detach(handle: Handle): void {
    if (this.handles.delete(handle)) this.letGo(handle.client);
  }

  /** Counts a handle or a parked wait of a client; its first one on a stopped process finds that stop unread. */
  hold(client: string): void {
    const holder = this.#holders.get(client);
    if (holder === undefined) this.#holders.set(client, { holds: 1, unread: this.#stop });
    else holder.holds += 1;
  }

  letGo(client: string): void {
    const holder = this.#holders.get(client);
    if (holder === undefined) return;
    holder.holds -= 1;
    if (holder.holds === 0) this.#holders.delete(client);
  }

  /** A stop or continue that the kernel reported. It overwrites what a client had not read: the kernel's own rule. */
  pause(event: WaitEvent): void {
    const continued = event.siginfo.code === 'CLD_CONTINUED';
    this.state = continued ? 'running' : 'stopped';
    this.#stop = continued ? null : event;
    for (const holder of this.#holders.values()) holder.unread = event;
  }

  /** The stop that it is in, if the kernel has reported it. */
  get stop(): WaitEvent | null {
    return this.#stop;
  }

  /** What is known of its stops, to be handed on; see {@link restorePauses}. */
  get pauses(): Pauses {
    const unread = [...this.#holders].flatMap(([client, { unread: event }]) =>
      event === null ? [] : [[client, event]],
    );
    return { stop: this.#stop, unread: Object.fromEntries(unread) as Pauses['unread'] };
  }

  /** Takes up what an earlier image of the daemon knew, once its handles are attached. */
  restorePauses({ stop, unread }: Pauses): void {
    this.#stop = stop;
    for (const [client, holder] of this.#holders) holder.unread = unread[client] ?? null;
  }

  /** What a client has not read yet; `null` where there is nothing. */
  unread(client: string): WaitEvent | null {
    return this.#holders.get(client)?.unread ?? null;
  }

  markRead(client: string): void {
    const holder = this.#holders.get(client);
    if (holder !== undefined) holder.unread = null;
  }

  end(ending: Ending): void {
    this.state = 'exited';
    this.ending = ending;
  }

  /** Ended, and nothing more will be learnt of it. */
  get settled(): boolean {
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
