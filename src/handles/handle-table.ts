import type { HandleView } from '../../schemas/handles.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { Tombstone } from '../journal/queries.ts';
import { readStat } from '../kernel/proc.ts';
import type { LabelFilter } from '../model/event-filter.ts';
import { Listeners } from '../model/listeners.ts';
import type { Handle, OpenDescription, Process, ProcessState } from '../model/process.ts';
import { viewOfHandle } from '../model/views.ts';
import { HandleIds } from './handle-ids.ts';
import { Names } from './names.ts';
import { stale, unknownHandle } from './refusals.ts';

/**
 * What a client wants with a handle. `see` changes nothing; `take` is waitid's collecting; `change` is about the handle itself;
 * `signal` is about its process, and `input` about what that reads.
 */
export type Purpose = 'see' | 'take' | 'change' | 'signal' | 'input';

export interface ListQuery {
  state?: ProcessState | undefined;
  name?: string | undefined;
  labels: readonly LabelFilter[];
  limit: number;
  /** The seq of the last handle of the page before. */
  before?: number | undefined;
}

export interface HandlePage {
  handles: HandleView[];
  /** Where the next page begins; `null` on the last one. */
  next: number | null;
  /** The cursor of the newest event: the page shows all changes up to it, and no later one. */
  head: number;
}

/** A page of handles ends after so many characters of labels and arguments: far more than a thousand usual handles have. */
const PAGE_BYTES = 4 * 2 ** 20;

const sizeOf = ({ labels, process: { argv } }: HandleView): number =>
  [...Object.entries(labels).flat(), ...argv].reduce((sum, text) => sum + text.length, 0);

/** Every client's handles. Those on live processes are in memory; those on ended ones are records of the journal. */
export class HandleTable {
  readonly #journal: Journal;
  readonly #ids: HandleIds;
  readonly names: Names;
  readonly #live = new Map<string, Handle>();
  /** How many live handles each client has, with its reservations. */
  readonly #liveOf = new Map<string, number>();
  readonly #counted = new Listeners();

  constructor(journal: Journal) {
    this.#journal = journal;
    this.#ids = new HandleIds(journal.identity.key);
    this.names = new Names(journal, (id) => this.#live.has(id));
  }

  /** How many handles are on live processes. */
  get size(): number {
    return this.#live.size;
  }

  /** Returns the handles on live processes. */
  values(): MapIterator<Handle> {
    return this.#live.values();
  }

  /** Subscribes to changes of {@link size}. @returns a function that ends the subscription */
  onCount(listener: () => void): () => void {
    return this.#counted.on(listener);
  }

  /** Returns how many handles on live processes a client has, with its reservations. */
  countOf(client: string): number {
    return this.#liveOf.get(client) ?? 0;
  }

  /** Counts a handle that is about to be made, until the reservation is disposed of. */
  reserve(client: string): Reservation {
    this.#count(client, 1);
    return new Reservation(() => this.#count(client, -1));
  }

  #count(client: string, more: number): void {
    const count = this.countOf(client) + more;
    if (count === 0) this.#liveOf.delete(client);
    else this.#liveOf.set(client, count);
  }

  makeId(client: string): string {
    return this.#ids.make(client);
  }

  /** Adds a handle on a process that has not been reaped. */
  add(handle: Handle): void {
    handle.description.retain();
    handle.process.attach(handle);
    this.#live.set(handle.id, handle);
    this.names.add(handle);
    this.#count(handle.client, 1);
    this.#counted.emit();
  }

  /** Removes a handle from memory. @returns whether it was there */
  remove(handle: Handle): boolean {
    if (!this.#live.delete(handle.id)) return false;
    this.names.remove(handle);
    this.#count(handle.client, -1);
    this.#counted.emit();
    return true;
  }

  /** Returns the live handle that a record of the journal stands for, or the record itself. */
  current(handle: Handle): Handle {
    return this.#live.get(handle.id) ?? handle;
  }

  /** Returns the open handles on a description. */
  handlesOn(description: OpenDescription): Handle[] {
    return this.#journal.queries
      .handlesOf(description.process)
      .filter((handle) => handle.description.id === description.id)
      .map((handle) => this.current(handle));
  }

  /**
   * Returns a handle that is the client's own, or that it may see.
   * @param ref its id; or `@` and its name, for the client's own
   * @throws {Problem} EBADF for an id that the client never had, ESTALE for a closed or expired handle, EPERM
   */
  get(client: Client, ref: string, purpose: Purpose = 'see'): Handle {
    const id = this.names.resolve(client.name, ref);
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
    const handle = live ?? this.#journal.queries.handle(id);
    return handle?.client === client.name || client.seesAll ? handle : null;
  }

  #tombstone(client: Client, id: string): Tombstone | null {
    const tombstone = this.#mayKnow(client, id) ? this.#journal.queries.tombstone(id) : null;
    return tombstone?.client === client.name || client.seesAll ? tombstone : null;
  }

  /** An id shows whose it is. Another client's is not looked up, so that the time of the answer reveals nothing about it. */
  #mayKnow({ name, seesAll }: Client, id: string): boolean {
    return seesAll || this.#ids.isOurs(name, id) || !this.#ids.isSealed(id);
  }

  /** Returns the event cursor from before a handle's first event, closed ones included; `null` if the client never had it. */
  beginningOf(client: Client, id: string): number | null {
    const known = this.#find(client, id) ?? this.#tombstone(client, id);
    if (known !== null) return known.seq;
    return this.#ids.isOurs(client.name, id) ? 0 : null;
  }

  /** Returns a page of the handles that a client may see, newest first. */
  list(client: Client, { state, labels, name, limit, before }: ListQuery): HandlePage {
    const { head, fault } = this.#journal;
    const handles: HandleView[] = [];
    let bytes = 0;
    // While the disk is full, the tables do not know which processes have ended, and the views alone decide.
    const ended = state === undefined || fault !== null ? {} : { ended: state === 'exited' };
    for (let from = before ?? Number.MAX_SAFE_INTEGER; ; ) {
      const page = this.#journal.queries.list({
        client: client.scope,
        labels,
        ...(name !== undefined && { name }),
        before: from,
        limit: limit + 1,
        ...ended,
      });
      for (const { id, seq } of page) {
        if (handles.length === limit || bytes >= PAGE_BYTES) return { handles, next: handles.at(-1)!.seq, head };
        from = seq;
        const handle = this.#find(client, id);
        const view = handle && this.view(handle);
        if (view === null || (state !== undefined && view.state !== state)) continue;
        handles.push(view);
        bytes += sizeOf(view);
      }
      if (page.length <= limit) return { handles, next: null, head };
    }
  }

  view(handle: Handle): HandleView {
    const { process, client } = handle;
    const collected = process.ending !== null && this.#journal.queries.isCollected(process, client);
    return viewOfHandle(handle, stateOf(process), collected);
  }
}

function requirePurpose({ name, rights }: Client, { id, client }: Handle, purpose: Purpose): void {
  const own = client === name;
  if (purpose === 'take' && !own) {
    const detail = 'Only its own client collects this status: add WNOWAIT, or open the process yourself.';
    throw new Problem('EPERM', detail, { handle: id });
  }
  if (purpose === 'signal' && !rights.signal) throw notAllowed('send signals');
  if (purpose === 'input' && !rights.input) throw notAllowed('write to processes');
  if (purpose !== 'see' && !own && !rights.admin) throw notAllowed('change what is another client’s');
}

/** The kernel does not report the stops of a foreign process to the daemon, so its state is read from /proc. */
function stateOf(process: Process): ProcessState {
  if (process.relation === 'child' || process.ending !== null) return process.state;
  const state = readStat(process.pid)?.state;
  return state === 'T' || state === 't' ? 'stopped' : 'running';
}
