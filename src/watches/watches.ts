import { randomBytes } from 'node:crypto';
import type { Match } from '../../schemas/match.ts';
import type { CreateWatch, WatchView } from '../../schemas/watches.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import type { Clients } from '../clients/clients.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { OpenOptions } from '../handles/open-options.ts';
import { unwritable } from '../handles/refusals.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';
import type { WatchChange } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import { SystemError } from '../kernel/errno.ts';
import type { Features } from '../kernel/features.ts';
import { inTurns } from '../kernel/in-turns.ts';
import { listPids } from '../kernel/proc.ts';
import { Listeners } from '../model/listeners.ts';
import type { Handle } from '../model/process.ts';
import { viewOfWatch, Watch } from '../model/watch.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import { Facts } from './facts.ts';
import { findOne } from './find.ts';
import { ProcessMonitor } from './process-monitor.ts';

const MOST_OF_CLIENT = 100;
const MOST = 1000;

/** How many records of ended processes are collected before they are removed from the journal. */
const MOST_STALE = 500;

export interface WatchesParts {
  journal: Journal;
  handles: Handles;
  clients: Clients;
  table: ProcessTable;
  reaper: Reaper;
  features: Features;
}

/** Finds processes by their properties, for handles that are opened now and for those that a watch opens later. */
export class Watches {
  readonly #parts: WatchesParts;
  readonly #byId = new Map<string, Watch>();
  /** Watches that are being made: they count, and match nothing yet. */
  readonly #making = new Set<Watch>();
  #monitor: ProcessMonitor | null = null;
  #spentMs = 0;
  #stale: { watch: string; pid: number }[] = [];
  readonly #opened = new Listeners<[handle: Handle, watch: string]>();

  constructor(parts: WatchesParts) {
    this.#parts = parts;
    parts.journal.addSource(() => this.#byId.values().flatMap(changesOf));
    // It was skipped before it executed its program.
    parts.handles.onBegun((pid) => this.#see(pid));
  }

  /** Subscribes to the handles that watches open. @returns a function that ends the subscription */
  onOpened(listener: (handle: Handle, watch: string) => void): () => void {
    return this.#opened.on(listener);
  }

  get size(): number {
    return this.#byId.size;
  }

  /** How long the scans of /proc took so far, in milliseconds. */
  get spentMs(): number {
    return this.#spentMs + (this.#monitor?.spentMs ?? 0);
  }

  /** Goes on with the watches of an earlier daemon, and opens what has appeared meanwhile. */
  resume(): void {
    const { journal } = this.#parts;
    for (const { facts, sighted } of journal.queries.watches()) {
      const watch = new Watch(facts);
      for (const { pid, key } of sighted) watch.sighted.set(pid, key);
      this.#byId.set(facts.id, watch);
    }
    if (this.#byId.size > 0) this.#begin().scanAll();
  }

  /**
   * Opens the one process that matches.
   * @throws {Problem} ESRCH, ENOTUNIQ; of {@link Handles.open}
   */
  async openOne(client: Client, match: Match, options: OpenOptions): Promise<Handle> {
    const { pid, still } = await findOne(client, match, this.#parts);
    return this.#parts.handles.open(client, { pid, still }, options);
  }

  /**
   * Makes a watch: from now on every process that matches is opened once.
   * @throws {Problem} EPERM; EDQUOT if the client has enough watches; ENOSPC if it cannot be written
   */
  async create(
    client: Client,
    { match, existing, nonblocking, labels }: CreateWatch,
    claim: Claim | undefined,
  ): Promise<Watch> {
    if (client.rights.open === 'none') throw notAllowed('open processes');
    // An earlier try has made it before the daemon died.
    if (claim?.handle != null) return this.get(client, claim.handle);
    const making = [...this.#making].filter(({ facts }) => facts.client === client.name).length;
    const own = this.#of(client.name).length + making;
    if (own >= MOST_OF_CLIENT || this.#byId.size + this.#making.size >= MOST)
      throw new Problem(
        'EDQUOT',
        `There may be ${own >= MOST_OF_CLIENT ? MOST_OF_CLIENT : MOST} watches: delete one.`,
        {
          retry: { afterMs: 1000 },
        },
      );
    const id = `w_${randomBytes(21).toString('base64url')}`;
    const watch = new Watch({
      id,
      client: client.name,
      match,
      existing,
      nonblocking,
      labels,
      createdAt: Date.now(),
      opened: 0,
    });
    // First, so that no process appears unseen.
    const monitor = this.#begin();
    this.#making.add(watch);
    try {
      if (!existing) await this.#skipExisting(watch);
    } finally {
      this.#making.delete(watch);
    }
    const { journal } = this.#parts;
    const key = claim === undefined ? [] : [{ write: 'key' as const, key: claim.keep(id, null) }];
    if (!journal.commit([...changesOf(watch), ...key])) {
      journal.commit([{ write: 'watch withdrawn', watch: id }]);
      this.#endIfUnwanted();
      throw unwritable(journal.fault);
    }
    this.#byId.set(id, watch);
    // Without `existing` too, for processes that have appeared while the others were scanned.
    monitor.scanAll();
    return watch;
  }

  /** Marks the processes that match already, so that they are not opened. */
  async #skipExisting(watch: Watch): Promise<void> {
    const { reaper, table } = this.#parts;
    for await (const pid of inTurns(listPids())) {
      if (reaper.isReserved(pid)) continue;
      const facts = Facts.of(pid, table);
      if (facts !== null && watch.matcher.fits(facts)) watch.sighted.set(pid, facts.key);
    }
  }

  /**
   * Returns a watch.
   * @param purpose `change` is for its own client and for admins
   * @throws {Problem} EBADF if the client has no such watch; EPERM
   */
  get(client: Client, id: string, purpose: 'see' | 'change' = 'see'): Watch {
    const watch = this.#byId.get(id);
    const own = watch?.facts.client === client.name;
    if (watch === undefined || !(own || client.seesAll))
      throw new Problem('EBADF', 'You have no such watch: list yours with GET /v1/watches.');
    if (purpose === 'change' && !own && !client.rights.admin) throw notAllowed('change what is another client’s');
    return watch;
  }

  /** Returns the watches that a client may see, newest first. */
  list(client: Client): Watch[] {
    return this.#of(client.scope).reverse();
  }

  #of(client: string | null): Watch[] {
    return [...this.#byId.values()].filter(({ facts }) => client === null || facts.client === client);
  }

  /** Deletes a watch. The handles that it has opened stay. */
  delete(watch: Watch): void {
    this.#byId.delete(watch.facts.id);
    this.#parts.journal.commit([{ write: 'unwatched', watch: watch.facts.id }]);
    this.#endIfUnwanted();
  }

  view(watch: Watch): WatchView {
    return viewOfWatch(watch, this.#monitor!.means);
  }

  #begin(): ProcessMonitor {
    this.#monitor ??= new ProcessMonitor(
      (pid) => this.#see(pid),
      (pid) => this.#forget(pid),
    );
    return this.#monitor;
  }

  /** Closes the monitor if there is no watch: an idle daemon has no socket and no timer for it. */
  #endIfUnwanted(): void {
    if (this.#byId.size + this.#making.size > 0) return;
    this.#spentMs = this.spentMs;
    this.#monitor?.close();
    this.#monitor = null;
  }

  #see(pid: number): void {
    const { reaper, table } = this.#parts;
    if (this.#byId.size === 0 || reaper.isReserved(pid)) return;
    const facts = Facts.of(pid, table);
    if (facts === null) return;
    for (const watch of this.#byId.values()) {
      if (watch.sighted.get(pid) === facts.key || !watch.matcher.fits(facts)) continue;
      this.#open(watch, facts);
    }
  }

  /** Opens a process. If that fails (a quota, a right, no descriptor), it is tried again when the process is seen next. */
  #open(watch: Watch, { pid, key }: Facts): void {
    const { clients, handles, table } = this.#parts;
    const { id, client: name, nonblocking, labels } = watch.facts;
    const client = clients.find(name);
    if (client === null) return;
    const still = (): boolean => {
      const now = Facts.of(pid, table);
      return now?.key === key && watch.matcher.fits(now);
    };
    const sighting = { watch: id, pid, key, opened: watch.opened + 1 };
    let handle: Handle;
    try {
      handle = handles.openNow(client, { pid, still }, { nonblocking, name: null, labels, sighting });
    } catch (error) {
      // A process that cannot be opened must end neither the watch nor the daemon.
      if (error instanceof Problem || error instanceof SystemError) return;
      throw error;
    }
    watch.sighted.set(pid, key);
    watch.opened += 1;
    this.#opened.emit(handle, id);
  }

  #forget(pid: number): void {
    for (const { sighted, facts } of this.#byId.values())
      if (sighted.delete(pid)) this.#stale.push({ watch: facts.id, pid });
    if (this.#stale.length < MOST_STALE) return;
    const { journal } = this.#parts;
    journal.commit(this.#stale.map(({ watch, pid }) => ({ write: 'unsighted', watch, pid })));
    this.#stale = [];
  }

  stop(): void {
    this.#monitor?.close();
    this.#monitor = null;
  }
}

/** Returns the changes that write a watch. */
function changesOf({ facts, opened, sighted }: Watch): WatchChange[] {
  const passed = [...sighted].map(([pid, key]) => ({ write: 'sighted' as const, watch: facts.id, pid, key }));
  return [{ write: 'watch', watch: { ...facts, opened } }, ...passed];
}
