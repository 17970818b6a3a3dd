import { constants as fs, openSync } from 'node:fs';
import type { HandleView } from '../../schemas/handles.ts';
import { MOST_LABELS } from '../../schemas/vocabulary.ts';
import type { Cgroups } from '../cgroups/cgroups.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import { Reservation, requireQuota } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import { changesOfHandle, type Sighting } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import type { Tombstone } from '../journal/queries.ts';
import { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Features } from '../kernel/features.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { readArgv, readStat, startedAt } from '../kernel/proc.ts';
import { Listeners } from '../model/listeners.ts';
import {
  type EndedBy,
  Handle,
  type Labels,
  OpenDescription,
  Process,
  type ProcessState,
  type Stream,
} from '../model/process.ts';
import { viewOfHandle } from '../model/views.ts';
import type { Outputs } from '../output/outputs.ts';
import { type Adoption, parentOf } from '../processes/adoption.ts';
import type { PendingSpawn } from '../processes/pending-spawns.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { ForkServer } from '../spawn/fork-server.ts';
import { type Launched, launch } from '../spawn/launch.ts';
import { explain } from '../spawn/launch-problems.ts';
import { type LaunchRequest, shownOf } from '../spawn/launch-request.ts';
import { HandleIds } from './handle-ids.ts';
import { isThere, noProcess, openPid, requireInode } from './open-pid.ts';
import { requireOpenable } from './openable.ts';
import { permitted } from './permit-spawn.ts';
import { outOfDescriptors, stale, unknownHandle, unwritable } from './refusals.ts';

/**
 * What a handle is asked for. `see` changes nothing; `take` is waitid's collecting; `change` is of the handle itself; `signal` is of
 * its process.
 */
export type Purpose = 'see' | 'take' | 'change' | 'signal';

export interface OpenOptions {
  nonblocking: boolean;
  labels: Labels;
  /** The caller may ask again, and is then to be given what this call made. */
  claim?: Claim | undefined;
  /** By which watch it is opened, on which process, and how many that watch has opened with it. */
  sighting?: (Sighting & { opened: number }) | undefined;
}

/** The process that is to be opened. */
export interface OpenTarget {
  pid: number;
  /** Refuses a process that has taken over the pid of the one that was meant. */
  inode?: string | undefined;
  /** Whether it is still the one that was found. */
  still?: () => boolean;
}

export interface ListQuery {
  state?: ProcessState | undefined;
  labels: readonly (readonly [key: string, value: string])[];
  limit: number;
  /** The seq of the last handle of the page before. */
  before?: number | undefined;
}

export interface HandlesParts {
  journal: Journal;
  table: ProcessTable;
  adoption: Adoption;
  reaper: Reaper;
  feed: EventSink;
  features: Features;
  /** Handles take no descriptor with this number or a higher one. */
  descriptors: number;
  outputs: Outputs;
  cgroups: Cgroups;
  forkServer: ForkServer;
}

/** How long a stop or an upgrade waits for spawns under way. */
const SETTLE_MS = 1000;

/** A process that is not yet the program that was asked for. */
interface Spawning {
  /** `null` until it is known. */
  pid: number | null;
  done: Promise<void>;
}

/** What a new handle is made of. */
interface HoldFacts extends OpenOptions {
  id: string;
  client: string;
  description: OpenDescription;
  /** Whether its process is a new one for us. */
  watch: boolean;
}

/** After how many characters of labels and arguments a page of handles ends: far beyond what a thousand usual ones have. */
const PAGE_BYTES = 4 * 2 ** 20;

const sizeOf = ({ labels, process: { argv } }: HandleView): number =>
  [...Object.entries(labels).flat(), ...argv].reduce((sum, text) => sum + text.length, 0);

/** Every client's handles. Those on live processes are held here; those on ended ones are records in the journal. */
export class Handles {
  readonly #parts: HandlesParts;
  readonly #ids: HandleIds;
  readonly #live = new Map<string, Handle>();
  /** How many of these each client has, or has a place for. */
  readonly #liveOf = new Map<string, number>();
  readonly #spawning = new Set<Spawning>();
  readonly #forkServer: ForkServer;
  /** Of /dev/null, for all that have no other streams. */
  readonly #nothing = new Descriptor(openSync('/dev/null', fs.O_RDWR));
  #refusal: Problem | null = null;
  readonly #counted = new Listeners();
  readonly #begun = new Listeners<[pid: number]>();

  constructor(parts: HandlesParts) {
    this.#parts = parts;
    this.#forkServer = parts.forkServer;
    this.#ids = new HandleIds(parts.journal.identity.key);
    parts.journal.addSource(() => this.#live.values().flatMap(changesOfHandle));
    parts.reaper.onRetired((process) => {
      for (const handle of process.handles) {
        this.#forget(handle);
        parts.cgroups.release(handle.description.id);
      }
    });
  }

  /** Subscribes to changes of {@link size}. @returns a function that ends the subscription */
  onCount(listener: () => void): () => void {
    return this.#counted.on(listener);
  }

  /** Subscribes to spawned processes that have begun to execute their program. @returns a function that ends the subscription */
  onBegun(listener: (pid: number) => void): () => void {
    return this.#begun.on(listener);
  }

  /** How many are on live processes. */
  get size(): number {
    return this.#live.size;
  }

  #forget(handle: Handle): boolean {
    if (!this.#live.delete(handle.id)) return false;
    this.#countLive(handle.client, -1);
    this.#counted.emit();
    return true;
  }

  #countLive(client: string, more: number): void {
    const count = (this.#liveOf.get(client) ?? 0) + more;
    if (count === 0) this.#liveOf.delete(client);
    else this.#liveOf.set(client, count);
  }

  /**
   * Starts a program and holds it.
   * @throws {Problem} of {@link launch}; EPERM, EDQUOT; ENOSPC where nothing can be written down; EMFILE
   */
  async spawn(asking: Client, wanted: LaunchRequest, options: OpenOptions): Promise<Handle> {
    const { journal, features, descriptors, outputs, cgroups } = this.#parts;
    const { name: client } = asking;
    if (asking.rights.spawn === false) throw notAllowed('spawn');
    using place = this.#reserve('posix_spawn', asking);
    using room = outputs.reserve(asking, captured(wanted).length);
    asking.spawns.take(asking.quotas.spawnsPerSecond);
    const request = await permitted(asking.rights.spawn, wanted);
    const id = this.#ids.make(client);
    const number = journal.takeNumber();
    const facts = { id: number, argv: request.argv.map(shownOf), relation: 'child' as const };
    const output = { streams: captured(request), ended: false };
    const files = {
      nothing: this.#nothing.fd,
      cgroupProcs: () => cgroups.procsFile(number),
    };
    const launchOptions = { forkServer: this.#forkServer, nonblocking: flag(options, features), descriptors };
    const start = async (): Promise<Launched> => {
      using ends = await outputs.open(number, client, output.streams).catch((error) => {
        throw explain(error);
      });
      return await launch(request, { ...files, output: ends.of }, launchOptions);
    };
    const intend = ({ pid, pidfd }: Launched): Handle => {
      if (request.cgroup !== undefined) cgroups.follow(number, pid);
      const inode = features.inode ? pidfd.inode : null;
      const process = new Process({ ...facts, pid, inode, startedAt: Date.now() });
      const description = new OpenDescription(number, process, pidfd, options.nonblocking, output);
      // Its place among the others is only known when it is there.
      return new Handle({ id, client, description, labels: options.labels, createdAt: Date.now(), seq: -number });
    };
    try {
      if (request.cgroup !== undefined) cgroups.create(number, request.cgroup);
      const handle = await this.#begin(() => this.#withDescriptorsFor(start), intend, options.claim, [place, room]);
      if (output.streams.length > 0) outputs.track(handle.description, client);
      return handle;
    } catch (error) {
      outputs.discard(number, output.streams);
      if (request.cgroup !== undefined) cgroups.release(number);
      throw error;
    }
  }

  /**
   * The way of a spawn, in this order: the process is made, and waits; it is written down, as one that is only intended; it becomes
   * its program; it is held, and told of. So a daemon that dies in between leaves either nothing that runs or something that the next
   * one finds by its pid and inode, and a request that is sent again with its key starts no second process.
   */
  async #begin(
    start: () => Promise<Launched>,
    intend: (launched: Launched) => Handle,
    claim: Claim | undefined,
    reserved: readonly Disposable[],
  ): Promise<Handle> {
    const { reaper, journal } = this.#parts;
    const { promise, resolve } = Promise.withResolvers<void>();
    const spawning: Spawning = { pid: null, done: promise };
    this.#spawning.add(spawning);
    try {
      const { launched, pending } = await this.#launched(start);
      spawning.pid = launched.pid;
      using over = new DisposableStack();
      over.defer(reaper.reserve(launched.pid, pending));
      const intent = intend(launched);
      const withdraw = (): void => void journal.commit([{ write: 'withdrawn', handle: intent }]);
      const written = journal.commit([
        { write: 'process', process: intent.process },
        { write: 'handle', handle: intent },
        ...(claim === undefined ? [] : [{ write: 'key' as const, key: claim.keep(intent.id, null) }]),
      ]);
      if (!written) {
        launched.undo();
        reaper.discard(launched.pid);
        withdraw();
        throw unwritable(journal.fault, 'posix_spawn');
      }
      try {
        await launched.begin();
      } catch (error) {
        launched.undo();
        reaper.discard(launched.pid);
        withdraw();
        throw error;
      }
      // From here on the handle and its output are counted themselves.
      for (const each of reserved) each[Symbol.dispose]();
      const handle = this.#place(intent);
      reaper.attach(handle.process);
      over.dispose();
      this.#begun.emit(launched.pid);
      return handle;
    } finally {
      this.#spawning.delete(spawning);
      resolve();
    }
  }

  async #launched(start: () => Promise<Launched>): Promise<{ launched: Launched; pending: PendingSpawn }> {
    const pending = this.#parts.reaper.beginSpawn();
    try {
      return { launched: await start(), pending };
    } catch (error) {
      pending.done();
      throw error;
    }
  }

  /**
   * Takes on no more spawns, and lets those under way come to their ends: first by themselves, then by giving them up. Ends soon.
   * @param problem what those are told that come from now on
   */
  async settleSpawns(problem: Problem): Promise<void> {
    this.refuseNew(problem);
    const over = Promise.all([...this.#spawning].map(({ done }) => done));
    const late = setTimeout(() => this.#forkServer.abandon(), SETTLE_MS);
    await over;
    clearTimeout(late);
  }

  /**
   * Holds a process that is there already. One that the daemon is only just starting is so once it has its own handle.
   * @throws {Problem} of {@link openNow}
   */
  async open(asking: Client, target: OpenTarget, options: OpenOptions): Promise<Handle> {
    if (this.#parts.reaper.isReserved(target.pid)) await this.#spawned(target.pid);
    return this.openNow(asking, target, options);
  }

  /** Waits for the spawn of a process, and for nobody else's. */
  async #spawned(pid: number): Promise<void> {
    for (const { done } of [...this.#spawning].filter((spawning) => spawning.pid === pid)) await done;
  }

  /**
   * The same for one that the reaper does not keep.
   * @throws {Problem} ESRCH; EPERM, EDQUOT; EOPNOTSUPP for an inode before Linux 6.9; EMFILE
   */
  openNow(asking: Client, { pid, inode, still }: OpenTarget, options: OpenOptions): Handle {
    const { table, reaper, features, journal } = this.#parts;
    const { name: client } = asking;
    this.#requireRoom('pidfd_open', asking);
    const pidfd = this.#withDescriptors(() => openPid(pid, flag(options, features), this.#parts.descriptors));
    let handle: Handle | null = null;
    try {
      const found = features.inode ? pidfd.inode : null;
      requireOpenable(asking, pid, table);
      // What that was decided by is of the process that we hold only if that one still has the pid.
      if (!isThere(pidfd)) throw noProcess(pid);
      if (inode !== undefined) requireInode(inode, found, pid);
      if (still?.() === false) throw noProcess(pid);
      reaper.lookAfterChildren(); // its end or its stop may be waiting to be noticed, and its pid may have changed hands
      const known = table.get(pid);
      if (known?.relation === 'child') reaper.settle(known); // among thousands that have ended it may not have had its turn
      if (known !== undefined && known.inode === found) {
        if (known.relation === 'child' && known.ending !== null) throw noProcess(pid);
        const description = this.#describe(known, pidfd, options.nonblocking);
        return this.#hold({ ...options, id: this.#ids.make(client), client, description, watch: false });
      }
      const stat = readStat(pid);
      const argv = readArgv(pid);
      if (stat === null || !isThere(pidfd)) throw noProcess(pid);
      const process = new Process({
        id: journal.takeNumber(),
        pid,
        inode: found,
        startedAt: startedAt(stat),
        argv,
        relation: 'foreign',
      });
      const description = this.#describe(process, pidfd, options.nonblocking);
      if (parentOf(process, pidfd) === globalThis.process.pid) {
        process.relation = 'child';
        if (stat.state === 'T') process.state = 'stopped';
      }
      handle = this.#hold({ ...options, id: this.#ids.make(client), client, description, watch: true });
      if (process.relation === 'foreign' && this.#parts.adoption.follow(process)) reaper.adopt(process);
      reaper.wake(); // a zombie is seen as one from the first answer on
      return handle;
    } catch (error) {
      // A handle that is written down owns the descriptor, and its client never gets to know of it.
      if (handle === null) pidfd.close();
      else this.close(handle);
      throw error;
    }
  }

  /** Another handle on the same open file description, also after the end. */
  dup(asking: Client, id: string, options: Omit<OpenOptions, 'nonblocking'>): Handle {
    const { name: client } = asking;
    const { description } = this.get(asking, id, 'change');
    this.#requireRoom('dup', description.pidfd === null ? null : asking);
    const { nonblocking } = description;
    return this.#hold({ ...options, nonblocking, id: this.#ids.make(client), client, description, watch: false });
  }

  /**
   * A handle that is the client's own, or that it may see.
   * @throws {Problem} EBADF where there never was one for it, ESTALE where it was closed or has expired, EPERM
   */
  get(client: Client, id: string, purpose: Purpose = 'see'): Handle {
    const handle = this.#find(client, id);
    if (handle !== null) {
      requirePurpose(client, handle, purpose);
      return handle;
    }
    const tombstone = this.#tombstone(client, id);
    if (tombstone !== null) throw stale(id, tombstone.endedBy === 'closed' ? 'was closed' : 'has expired');
    if (this.#ids.isOurs(client.name, id)) throw stale(id, 'was closed or has expired long ago');
    throw unknownHandle(id);
  }

  #find(client: Client, id: string): Handle | null {
    const live = this.#live.get(id);
    if (live?.client === client.name) return live;
    if (!this.#mayKnow(client, id)) return null;
    const handle = live ?? this.#parts.journal.queries.handle(id);
    return handle?.client === client.name || client.seesAll ? handle : null;
  }

  #tombstone(client: Client, id: string): Tombstone | null {
    const tombstone = this.#mayKnow(client, id) ? this.#parts.journal.queries.tombstone(id) : null;
    return tombstone?.client === client.name || client.seesAll ? tombstone : null;
  }

  /** An id tells by itself whose it is, so another client's is not even looked up: the time that takes tells nothing of it. */
  #mayKnow({ name, seesAll }: Client, id: string): boolean {
    return seesAll || this.#ids.isOurs(name, id) || !this.#ids.isSealed(id);
  }

  /** The event cursor from before a handle's first event, also for a closed or expired one; `null` where this client never had it. */
  beginningOf(client: Client, id: string): number | null {
    const known = this.#find(client, id) ?? this.#tombstone(client, id);
    if (known !== null) return known.seq;
    return this.#ids.isOurs(client.name, id) ? 0 : null;
  }

  /** A page of the handles that are there for a client, newest first, and where the next one begins. */
  list(client: Client, { state, labels, limit, before }: ListQuery): { handles: HandleView[]; next: number | null } {
    const handles: HandleView[] = [];
    let bytes = 0;
    const ended = state === undefined ? {} : { ended: state === 'exited' };
    for (let from = before ?? Number.MAX_SAFE_INTEGER; ; ) {
      const page = this.#parts.journal.queries.list({
        client: client.scope,
        labels,
        before: from,
        limit: limit + 1,
        ...ended,
      });
      for (const { id, seq } of page) {
        if (handles.length === limit || bytes >= PAGE_BYTES) return { handles, next: handles.at(-1)!.seq };
        from = seq;
        const handle = this.#find(client, id);
        const view = handle && this.view(handle);
        if (view === null || (state !== undefined && view.state !== state)) continue;
        handles.push(view);
        bytes += sizeOf(view);
      }
      if (page.length <= limit) return { handles, next: null };
    }
  }

  /**
   * Changes what a handle carries; `null` removes a label.
   * @throws {Problem} EINVAL for too many labels; nothing is changed then
   */
  update(handle: Handle, nonblocking: boolean | undefined, labels: Record<string, string | null> | undefined): void {
    const { journal } = this.#parts;
    const merged = Object.entries({ ...handle.labels, ...labels }).filter(([, value]) => value !== null);
    if (merged.length > MOST_LABELS)
      throw new Problem('EINVAL', `A handle has at most ${MOST_LABELS} labels: remove some by null.`, {
        handle: handle.id,
      });
    if (nonblocking !== undefined) {
      handle.description.nonblocking = nonblocking;
      journal.commit([{ write: 'description', description: handle.description }]);
    }
    if (labels === undefined) return;
    handle.labels = Object.fromEntries(merged) as Labels;
    journal.commit([{ write: 'handle', handle }]);
  }

  /** Closes a handle. The process lives on, and so does a wait that is parked on it. */
  close(handle: Handle): void {
    this.#end([handle], 'closed');
  }

  /** Ends handles whose time is over. */
  expire(handles: readonly Handle[]): void {
    // The one that is held, where its process has not been reaped: a foreign process's parent may never do that.
    this.#end(
      handles.map((handle) => this.#live.get(handle.id) ?? handle),
      'expired',
    );
  }

  #end(handles: readonly Handle[], endedBy: EndedBy): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    for (const handle of handles) {
      batch.event(endedBy, handle, handle.process.ending ?? {});
      batch.write({ write: 'tombstone', handle, endedBy, last: journal.head });
    }
    batch.commit(feed, () => {
      for (const handle of handles) this.#letGo(handle);
    });
  }

  #letGo(handle: Handle): void {
    const { table, adoption, outputs, cgroups } = this.#parts;
    if (handle.description.output.streams.length > 0 && this.#on(handle.description).length === 0)
      outputs.release(handle.description);
    if (!this.#forget(handle)) {
      table.groups.count(handle.process, -1);
      return;
    }
    handle.process.detach(handle);
    if (handle.process.handles.size === 0) {
      adoption.forget(handle.process);
      cgroups.release(handle.description.id);
    }
    table.release(handle.description);
  }

  /** The open handles on a description. */
  #on(description: OpenDescription): Handle[] {
    return this.#parts.journal.queries
      .handlesOf(description.process)
      .filter((handle) => handle.description.id === description.id)
      .map((handle) => this.#live.get(handle.id) ?? handle);
  }

  /** Nobody writes to what is captured any more. */
  endOutput(description: OpenDescription): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    description.output.ended = true;
    batch.write({ write: 'output', description });
    for (const handle of this.#on(description)) batch.event('output', handle, handle.process.ending ?? {});
    batch.commit(feed);
  }

  /** Does away with the cgroups that an earlier daemon left and nobody needs. */
  resumeCgroups(): void {
    for (const { description, process } of this.#live.values())
      if (process.ending === null) this.#parts.cgroups.follow(description.id, process.pid);
    this.#parts.cgroups.releaseAllBut(new Set([...this.#live.values()].map(({ description }) => description.id)));
  }

  /** Goes on with captured output whose end an earlier daemon had not told, and does away with what belongs to nobody. */
  resumeOutput(): void {
    const { journal, outputs } = this.#parts;
    const owners = journal.queries.outputs();
    const capturing = journal.queries
      .capturing()
      .map(({ id, description }) => this.#live.get(id)?.description ?? description);
    outputs.sweep(owners);
    for (const description of new Map(capturing.map((each) => [each.id, each])).values())
      outputs.track(description, owners.get(description.id)!);
  }

  view(handle: Handle): HandleView {
    const { process, client } = handle;
    const collected = process.ending !== null && this.#parts.journal.queries.isCollected(process, client);
    return viewOfHandle(handle, stateOf(process), collected);
  }

  /** Takes up a handle that an earlier daemon left, on a process that still lives. */
  restore(handle: Handle): void {
    handle.description.retain();
    handle.process.attach(handle);
    this.#live.set(handle.id, handle);
    this.#countLive(handle.client, 1);
    this.#counted.emit();
  }

  #describe(process: Process, pidfd: Pidfd, nonblocking: boolean): OpenDescription {
    return new OpenDescription(this.#parts.journal.takeNumber(), process, pidfd, nonblocking);
  }

  /** Makes the handle, writes it, tells of it. From its `seq` on, no event of it can be missed. */
  #hold(facts: HoldFacts): Handle {
    const { id, client, description, labels, claim, sighting, watch } = facts;
    const { journal, feed, table } = this.#parts;
    const seq = journal.head;
    const { process } = description;
    const opener = sighting?.watch ?? null;
    const handle = new Handle({ id, client, description, labels, createdAt: Date.now(), seq, watch: opener });
    const batch = new Batch(journal);
    batch.write({ write: 'process', process });
    batch.write({ write: 'handle', handle });
    if (claim !== undefined) batch.write({ write: 'key', key: claim.keep(id, null) });
    if (sighting !== undefined) batch.write({ write: 'sighted', ...sighting, handle: seq });
    batch.event('opened', handle);
    if (description.pidfd !== null) {
      if (watch) table.add(process);
      this.restore(handle);
    } else table.groups.count(process, 1);
    if (process.ending !== null) batch.event('exited', handle, process.ending);
    batch.commit(feed);
    return handle;
  }

  /** Gives a handle that was only intended its place, and tells of it. */
  #place(intent: Handle): Handle {
    const { journal, feed, table } = this.#parts;
    const { id, client, description, labels, createdAt } = intent;
    const handle = new Handle({ id, client, description, labels, createdAt, seq: journal.head });
    const batch = new Batch(journal);
    batch.write({ write: 'placed', handle, before: intent.seq });
    batch.event('opened', handle);
    table.add(handle.process);
    this.restore(handle);
    batch.commit(feed);
    return handle;
  }

  /** Nothing new is taken on from now on. */
  refuseNew(problem: Problem): void {
    this.#refusal = problem;
  }

  /**
   * Nothing new is taken on while it could not be written down, or by a client that has enough.
   * @param client `null` where what it asks for takes nothing
   */
  #requireRoom(syscall: string, client: Client | null): void {
    if (this.#refusal !== null) throw this.#refusal;
    if (client !== null) requireQuota(client.quotas, 'handles', (this.#liveOf.get(client.name) ?? 0) + 1);
    const fault = this.#parts.journal.check();
    if (fault !== null) throw unwritable(fault, syscall);
  }

  /** The same, with a place for the handle that is about to be. */
  #reserve(syscall: string, client: Client): Reservation {
    this.#requireRoom(syscall, client);
    this.#countLive(client.name, 1);
    return new Reservation(() => this.#countLive(client.name, -1));
  }

  #withDescriptors<T>(make: () => T): T {
    for (;;)
      try {
        return make();
      } catch (error) {
        this.#giveUpDescriptor(error);
      }
  }

  async #withDescriptorsFor<T>(make: () => Promise<T>): Promise<T> {
    for (;;)
      try {
        return await make();
      } catch (error) {
        this.#giveUpDescriptor(error);
      }
  }

  /**
   * Descriptors kept for groups without a leader are the first to go when there are none left.
   * @throws what was not for want of one, and EMFILE where there is none to give up
   */
  #giveUpDescriptor(error: unknown): void {
    const full = isErrno(error, 'EMFILE', 'ENFILE') || (error instanceof Problem && error.errno === 'EMFILE');
    if (!full || !this.#parts.table.groups.giveUp()) throw full ? outOfDescriptors() : error;
  }
}

function requirePurpose({ name, rights }: Client, { id, client }: Handle, purpose: Purpose): void {
  const own = client === name;
  if (purpose === 'take' && !own) {
    const detail = 'This status is its client’s to collect: add WNOWAIT, or open the process yourself.';
    throw new Problem('EPERM', detail, { handle: id });
  }
  if (purpose === 'signal' && !rights.signal) throw notAllowed('send signals');
  if (purpose !== 'see' && !own && !rights.admin) throw notAllowed('change what is another client’s');
}

function captured({ stdout, stderr }: LaunchRequest): Stream[] {
  return [...(stdout === 'capture' ? ['stdout' as const] : []), ...(stderr === 'capture' ? ['stderr' as const] : [])];
}

/** A kernel without the flag (before 5.10) refuses it; the description then keeps it alone. */
function flag({ nonblocking }: OpenOptions, features: Features): boolean {
  return nonblocking && features.nonblocking;
}

/** A foreign process's stops do not come to us, so they are looked up when asked for. */
function stateOf(process: Process): ProcessState {
  if (process.relation === 'child' || process.ending !== null) return process.state;
  const state = readStat(process.pid)?.state;
  return state === 'T' || state === 't' ? 'stopped' : 'running';
}
