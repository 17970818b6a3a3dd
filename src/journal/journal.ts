import type { Gap } from '../../schemas/events.ts';
import type { Change } from './change.ts';
import { Cursor } from './cursor.ts';
import type { Identity } from './identity.ts';
import type { Notice } from './notices.ts';
import { Queries } from './queries.ts';
import { Reader } from './reader.ts';
import { Recent } from './recent.ts';
import type { HandedJournal } from './replay.ts';
import { type JournalOptions, type Started, start } from './start.ts';
import { Writer } from './writer.ts';

/**
 * The record of handles, outcomes and events. Every change is one {@link commit}: a line of the log. SQLite gets many lines in one
 * transaction: after a moment, before a read, and at the next start if the daemon dies before. What cannot be written, as on a full
 * disk, is kept and served from memory, and written once the disk allows it.
 */
export class Journal {
  readonly identity: Identity;
  readonly bootId: string;
  /** Everything that can be read, including what is not in the tables yet. */
  readonly queries: Queries;
  readonly #files: Started;
  readonly #cursor: Cursor;
  readonly #writer: Writer;

  /** @throws {Error} if a file is of a later version, or cannot be read or written */
  constructor(options: JournalOptions) {
    const { bootId, keepEvents } = options;
    const files = start(options);
    const recent = new Recent();
    this.identity = files.identity;
    this.bootId = bootId;
    this.#files = files;
    this.#cursor = new Cursor(files.tables, files.identity, files.start, keepEvents);
    this.#writer = new Writer({ ...files, cursor: this.#cursor, recent, bootId });
    this.queries = new Queries(new Reader(files.tables, this.#writer), recent, bootId);
  }

  /** The name of this node. Cursors of another node mean nothing here. */
  get node(): string {
    return this.identity.node;
  }

  /** The seq of the newest event, 0 before the first one. */
  get head(): number {
    return this.#cursor.head;
  }

  /** The seq of the oldest event that is stored, or of the next event where none is. */
  get oldest(): number {
    return this.#cursor.oldest;
  }

  /** Why nothing can be written now, `null` where it can. */
  get fault(): Error | null {
    return this.#writer.fault;
  }

  /** The last notice of this image of the daemon. */
  get lastNotice(): Notice | null {
    return this.#files.notices.last;
  }

  /** What the next image of this process needs; valid after {@link close}. */
  get handed(): HandedJournal {
    return this.#writer.handed;
  }

  /** Subscribes to damage and restored backups. A notice from before the first subscription is passed to that one. */
  onNotice(listener: (notice: Notice) => void): () => void {
    return this.#files.notices.on(listener);
  }

  /** Subscribes to the end of a fault: all changes that waited for the disk are written. */
  onRecovered(listener: () => void): () => void {
    return this.#writer.recovered.on(listener);
  }

  /** Adds a source of the changes that write all that exists to empty tables. */
  addSource(source: () => Iterable<Change>): void {
    this.#writer.addSource(source);
  }

  /** Returns the moment by which all records age, in milliseconds on the journal's clock. */
  now(): number {
    return this.#files.clock.now();
  }

  /** Returns the seq for the next event; see {@link Cursor.nextSeq}. */
  nextSeq(): number {
    return this.#cursor.nextSeq();
  }

  /** Returns a new number for a process or a description; see {@link Cursor.takeNumber}. */
  takeNumber(): number {
    return this.#cursor.takeNumber();
  }

  /** Returns the events that a reader at `since` has missed for ever; see {@link Cursor.gapAfter}. */
  gapAfter(since: number): Gap | null {
    return this.#cursor.gapAfter(since);
  }

  /**
   * Writes changes, all or none. A full or failing disk is no error: see {@link fault}.
   * @returns whether the changes are on disk
   */
  commit(changes: readonly Change[]): boolean {
    return this.#writer.commit(changes);
  }

  /** Brings all changes to the tables. @returns false where the disk does not allow it */
  apply(): boolean {
    return this.#writer.apply();
  }

  /** Checks the files. @returns why nothing can be written, `null` where it can */
  check(): Error | null {
    return this.#writer.check();
  }

  /** Removes what was stored long enough; see {@link Writer.trim}. */
  trim(eventsBefore: number, collectedBefore: number, keysBefore: number): boolean {
    return this.#writer.trim(eventsBefore, collectedBefore, keysBefore);
  }

  /** Writes what is pending and closes the files. */
  close(): void {
    this.#writer.close();
    const { log, tables, mark } = this.#files;
    log.close();
    tables.close();
    mark?.close();
  }
}
