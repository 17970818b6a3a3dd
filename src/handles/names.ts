import { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { Handle } from '../model/process.ts';

/** Marks a name where a request takes an id or a name. */
const MARK = '@';

/**
 * The names of open handles. No two handles of a client have the same one. Those of handles on live processes, and of handles that are
 * being made, are in memory; the others are in the journal.
 */
export class Names {
  readonly #journal: Journal;
  readonly #isLive: (id: string) => boolean;
  /** By client and name: the id of the handle. */
  readonly #ids = new Map<string, string>();

  /** @param isLive whether a handle is on a live process */
  constructor(journal: Journal, isLive: (id: string) => boolean) {
    this.#journal = journal;
    this.#isLive = isLive;
  }

  /** Returns the id of the handle that has a name; `null` if none has it. */
  find(client: string, name: string): string | null {
    return this.#ids.get(keyOf(client, name)) ?? this.#journal.queries.named(client, name);
  }

  /** Returns the id that a request means by an id, or by `@` and a name. A name that no handle has is returned as it is. */
  resolve(client: string, ref: string): string {
    return ref.startsWith(MARK) ? (this.find(client, ref.slice(1)) ?? ref) : ref;
  }

  /**
   * Requires that no other handle of the client has this name.
   * @param id the handle that is to have it
   * @throws {Problem} EEXIST
   */
  require(client: string, name: string | null, id?: string): void {
    const other = name === null ? null : this.find(client, name);
    if (other === null || other === id) return;
    const detail = `The name ${name} is in use by another of your handles: close that, or choose another name.`;
    throw new Problem('EEXIST', detail, { handle: other });
  }

  /**
   * Takes a name for a handle that is about to be made, until the reservation is disposed of. A handle that exists by then keeps it.
   * @throws {Problem} EEXIST
   */
  reserve(client: string, name: string | null, id: string): Reservation {
    this.require(client, name);
    if (name !== null) this.#ids.set(keyOf(client, name), id);
    return new Reservation(() => {
      if (!this.#isLive(id)) this.remove({ id, client, name });
    });
  }

  /** Adds the name of a handle. One on an ended process is found in the journal. */
  add({ id, client, name }: Pick<Handle, 'id' | 'client' | 'name'>): void {
    if (name !== null && this.#isLive(id)) this.#ids.set(keyOf(client, name), id);
  }

  remove({ id, client, name }: Pick<Handle, 'id' | 'client' | 'name'>): void {
    if (name !== null && this.#ids.get(keyOf(client, name)) === id) this.#ids.delete(keyOf(client, name));
  }
}

function keyOf(client: string, name: string): string {
  return `${name} ${client}`;
}
