import type { Gap } from '../../schemas/events.ts';
import type { Event } from '../model/event.ts';
import type { Identity } from './identity.ts';
import type { Tables } from './tables.ts';

/** The most events that one transaction removes. It may exceed the bound of events by so many, so that removal stays cheap. */
export const TRIM = 1000;

/** Removes keys that are old enough and whose handle or watch does not exist any more. */
const OLD_KEYS = `DELETE FROM keys WHERE (client, key) IN (
  SELECT client, key FROM keys k WHERE at < ? AND NOT EXISTS (SELECT 1 FROM handles h WHERE h.id = k.handle)
    AND NOT EXISTS (SELECT 1 FROM watches w WHERE w.id = k.handle) LIMIT ${TRIM})`;

/** Where the seqs of a start continue. */
export interface CursorStart {
  /** No seq up to this one may be used again. */
  reserved: number;
  /** Cursors up to this seq are from before the journal was restored from a backup. */
  reset: number;
}

/** Returns the newest seq that the tables hold. */
export function newestSeq(tables: Tables): number {
  return Math.max(tables.number('SELECT max(seq) n FROM events'), tables.number('SELECT max(seq) n FROM handles'));
}

/** The seqs of events: which are used, which events are still stored, and which are removed next. */
export class Cursor {
  readonly #tables: Tables;
  readonly reset: number;
  readonly #keepEvents: number;
  #head: number;
  #oldest: number;
  #events: number;
  /** The newest number of a process or a description. It is never behind the head, so that no earlier daemon can have used the next. */
  #numbers: number;

  /** @param keepEvents how many events are stored; readers get a gap for older ones */
  constructor(tables: Tables, identity: Identity, { reserved, reset }: CursorStart, keepEvents: number) {
    const used = newestSeq(tables);
    this.#tables = tables;
    this.reset = reset;
    this.#keepEvents = keepEvents;
    this.#head = Math.max(used, reserved);
    this.#numbers = tables.number(
      'SELECT max(id) n FROM processes UNION SELECT max(description) n FROM handles ORDER BY n DESC LIMIT 1',
    );
    if (used > 0 && used < this.#head) tables.run('INSERT OR IGNORE INTO holes VALUES (?, ?)', [used + 1, this.#head]);
    identity.reserve(this.#head);
    this.#oldest = tables.number('SELECT min(seq) n FROM events') || this.#head + 1;
    this.#events = tables.number('SELECT count(*) n FROM events');
  }

  /** The seq of the newest event, 0 before the first one. */
  get head(): number {
    return this.#head;
  }

  /** The seq of the oldest event that is stored, or of the next event where none is. */
  get oldest(): number {
    return this.#oldest;
  }

  /** Whether so many events are stored that the oldest ones must be removed. */
  get isFull(): boolean {
    return this.#events >= this.#keepEvents + TRIM;
  }

  /** Returns the seq for the next event. Seqs only grow, and none is used twice. */
  nextSeq(): number {
    this.#head += 1;
    return this.#head;
  }

  /** Returns a number for a process or a description that none had before, not even under an earlier daemon. */
  takeNumber(): number {
    this.#numbers = Math.max(this.#numbers, this.#head) + 1;
    return this.#numbers;
  }

  /**
   * Returns the events that a reader at `since` has missed for ever. Retention removed them, or an earlier daemon died after it had sent
   * them and before it wrote them. With `reset` they are from before a backup was restored.
   */
  gapAfter(since: number): Gap | null {
    if (since < this.reset) return { from: since + 1, to: Math.max(this.reset, this.#oldest - 1), reset: true };
    if (since < this.#oldest - 1) return { from: since + 1, to: this.#oldest - 1 };
    const sql = 'SELECT last FROM holes WHERE first <= ? AND last > ?';
    const [hole] = this.#tables.rows<{ last: number }>(sql, [since, since]);
    return hole === undefined ? null : { from: since + 1, to: hole.last };
  }

  /** Counts an event that was written to the tables. */
  count(): void {
    this.#events += 1;
  }

  /** Returns a function that undoes what the cursor counts from now on, for a transaction that fails. */
  savepoint(): () => void {
    const [events, oldest] = [this.#events, this.#oldest];
    return () => {
      this.#events = events;
      this.#oldest = oldest;
    };
  }

  /** Continues on empty tables. @param waiting the first event that is not in the tables yet and was not lost */
  restart(waiting: Event | undefined): void {
    this.#oldest = waiting?.seq ?? this.#head + 1;
    this.#events = 0;
  }

  /**
   * Removes old events, within a transaction.
   * @param isOld whether to remove an event, by its time on the journal's clock
   * @returns whether there may be more to remove
   */
  trimEvents(isOld: (at: number) => boolean): boolean {
    const sql = `SELECT seq, at FROM events ORDER BY seq LIMIT ${TRIM + 1}`;
    const oldest = this.#tables.rows<{ seq: number; at: number }>(sql);
    const kept = oldest.findIndex(({ at }, index) => index === TRIM || !isOld(at));
    const count = kept === -1 ? oldest.length : kept;
    if (count === 0) return false;
    const from = kept === -1 ? this.#head + 1 : oldest[kept]!.seq;
    this.#tables.run('DELETE FROM events WHERE seq < ?', [from]);
    this.#tables.run('DELETE FROM gone WHERE last < ?', [from]);
    this.#tables.run('DELETE FROM holes WHERE last < ?', [from]);
    this.#events -= count;
    this.#oldest = from;
    return count === TRIM;
  }

  /**
   * Removes, within a transaction, what was stored long enough. All moments are on the journal's clock.
   * @param collectedBefore of statuses; those of processes with handles stay. A parked wait may collect after its handle was closed.
   * @param keysBefore of idempotency keys; those of existing handles and watches stay
   * @returns whether there may be more events or keys to remove
   */
  trim(eventsBefore: number, collectedBefore: number, keysBefore: number): boolean {
    const more = this.trimEvents((at) => at < eventsBefore);
    this.#tables.run('DELETE FROM collected WHERE at < ? AND process NOT IN (SELECT id FROM processes)', [
      collectedBefore,
    ]);
    return this.#tables.run(OLD_KEYS, [keysBefore]) === TRIM || more;
  }
}
