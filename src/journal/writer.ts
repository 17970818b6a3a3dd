import { Listeners } from '../model/listeners.ts';
import type { Change } from './change.ts';
import type { Cursor } from './cursor.ts';
import { kindOf } from './database.ts';
import type { Identity } from './identity.ts';
import { InPlace, OutOfPlace } from './in-place.ts';
import type { JournalClock } from './journal-clock.ts';
import type { Log } from './log.ts';
import type { Mark } from './mark.ts';
import type { Notices } from './notices.ts';
import { Pending } from './pending.ts';
import type { Recent } from './recent.ts';
import type { HandedJournal } from './replay.ts';
import type { Moment } from './statement.ts';
import { statementsOf } from './statements.ts';
import type { Tables } from './tables.ts';

/** The time between two attempts to write while nothing can be written. */
const RETRY_MS = 250;

/** How long, and how many, changes may be in the log alone: one transaction for all costs a fraction of one for each. */
const APPLY_MS = 250;
const APPLY_CHANGES = 256;

interface WriterParts {
  tables: Tables;
  log: Log;
  cursor: Cursor;
  recent: Recent;
  identity: Identity;
  notices: Notices;
  clock: JournalClock;
  mark: Mark | null;
  bootId: string;
  /** The number of the last log line, which the tables have. */
  line: number;
}

/**
 * Writes changes: first to the log, one line for each commit, then many lines at a time to the tables. What cannot be written, as on a
 * full disk, stays in memory and is tried again until it can.
 */
export class Writer {
  /** Emits when all changes that waited for the disk are written. */
  readonly recovered = new Listeners();
  readonly #parts: WriterParts;
  readonly #inPlace = new InPlace();
  readonly #sources: (() => Iterable<Change>)[] = [];
  readonly #pending: Pending;
  /** The number of the newest line of the log, and of the last one that the tables have. */
  #line: number;
  #applied: number;
  #fault: Error | null = null;
  #applying: NodeJS.Timeout | null = null;
  #retry: NodeJS.Timeout | null = null;
  /** SQLite refused a change, and those behind it wait. The next image replays the log and skips that one. */
  #isRefused = false;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#pending = new Pending(parts.bootId);
    this.#line = parts.line;
    this.#applied = parts.line;
    parts.tables.replaced.on(() => this.#rebuild());
    this.#describe();
    for (const { path } of [parts.tables, parts.log, parts.identity]) this.#inPlace.expect(path);
  }

  /** The changes that wait for the disk. */
  get pending(): Pending {
    return this.#pending;
  }

  /** Why nothing can be written now, `null` where it can. */
  get fault(): Error | null {
    return this.#fault;
  }

  /** Adds a source of the changes that write all that exists to empty tables. */
  addSource(source: () => Iterable<Change>): void {
    this.#sources.push(source);
  }

  /**
   * Writes changes, all or none. A full or failing disk is no error: see {@link fault}.
   * @returns whether the changes are on disk
   */
  commit(changes: readonly Change[]): boolean {
    const at = this.#parts.clock.now();
    this.#line += 1;
    for (const change of changes) {
      if (change.write === 'process' && change.process.ending !== null) change.process.endedAt ??= at;
      this.#parts.recent.note(change);
      this.#pending.add(this.#line, at, change);
    }
    if (this.#fault !== null || !this.#append(changes, at)) return this.apply();
    if (this.#pending.size < APPLY_CHANGES) this.#applying ??= setTimeout(this.#applyNow, APPLY_MS);
    else if (this.#pending.size - changes.length < APPLY_CHANGES) setImmediate(this.#applyNow);
    return true;
  }

  /** @returns false where the log cannot be written, for whatever reason */
  #append(changes: readonly Change[], at: number): boolean {
    const { log, identity, cursor } = this.#parts;
    if (!this.#inPlace.isInPlace(log.path)) return false;
    try {
      const moment = this.#momentOf(at);
      log.append({ number: this.#line, statements: changes.flatMap((change) => statementsOf(change, moment)) });
      identity.reserve(cursor.head);
      return true;
    } catch {
      return false;
    }
  }

  #momentOf(at: number): Moment {
    return { boot: this.#parts.bootId, at };
  }

  readonly #applyNow = (): void => {
    try {
      this.apply();
    } catch {
      // fatal() has scheduled the error.
    }
  };

  /**
   * Brings all pending changes to the tables.
   * @returns false where the disk does not allow it
   */
  apply(): boolean {
    if (this.#applying !== null) clearTimeout(this.#applying);
    this.#applying = null;
    if (this.#pending.size === 0 || this.#isRefused) return this.#fault === null;
    const { tables, cursor, identity, mark, notices } = this.#parts;
    const isRecovering = this.#fault !== null;
    let undoCounts = (): void => {};
    try {
      this.#requireFiles();
      tables.transaction(() => {
        undoCounts = cursor.savepoint();
        for (const { change, statements } of this.#pending.latest()) {
          tables.runAll(statements);
          if (change.write === 'event') cursor.count();
        }
        tables.setMeta('applied', this.#line);
        if (cursor.isFull) cursor.trimEvents(() => true);
      });
      identity.reserve(cursor.head);
    } catch (error) {
      undoCounts();
      if (kindOf(error) !== 'disk' && !(error instanceof OutOfPlace)) {
        this.#isRefused = true;
        throw fatal(error);
      }
      this.#fail(error as Error);
      return false;
    }
    this.#pending.clear();
    this.#applied = this.#line;
    this.#fault = null;
    this.#emptyLog();
    mark?.write({ line: this.#applied, head: cursor.head });
    notices.publish();
    if (isRecovering) this.recovered.emit();
    return true;
  }

  #fail(error: Error): void {
    this.#fault = error;
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#applyNow();
    }, RETRY_MS);
  }

  /** A failure does no harm: a replay skips lines whose numbers the tables have, and the next call tries again. */
  #emptyLog(): void {
    try {
      this.#parts.log.clear();
    } catch {}
  }

  /**
   * Checks the files. Nothing new is accepted while one is missing or replaced.
   * @returns why nothing can be written, `null` where it can
   */
  check(): Error | null {
    if (this.#fault === null)
      try {
        this.#requireFiles();
      } catch (error) {
        this.#fail(error as Error);
      }
    return this.#fault;
  }

  /** @throws {OutOfPlace} where a file was removed or replaced */
  #requireFiles(): void {
    this.#inPlace.check();
    this.#parts.tables.check();
  }

  /** Continues on empty tables: writes all that exists, then the pending changes. */
  #rebuild(): void {
    const { tables, cursor, recent, clock } = this.#parts;
    this.#inPlace.expect(tables.path);
    recent.clear();
    this.#pending.precede(this.#applied, clock.now(), this.#existing());
    // Pending events are not lost, so the gap ends before them.
    cursor.restart(this.#pending.of('event')[0]?.event);
    this.#describe();
    // A read may have found the damage, and nothing else would start a write.
    this.#applying ??= setTimeout(this.#applyNow, APPLY_MS);
  }

  #existing(): Change[] {
    return this.#sources.flatMap((source) => [...source()]);
  }

  /** Writes what the journal stores about itself, to tables that may be new. */
  #describe(): void {
    const { tables, cursor, clock, mark } = this.#parts;
    tables.transaction(() => {
      tables.setMeta('boot', clock.boot);
      tables.setMeta('base', clock.base);
      tables.setMeta('last', clock.now());
      tables.setMeta('applied', this.#applied);
      tables.setMeta('marked', Number(mark !== null));
      tables.setMeta('reset', cursor.reset);
    });
    mark?.write({ line: this.#applied, head: cursor.head });
  }

  /** Removes what was stored long enough; see {@link Cursor.trim}. @returns whether to call it again; false on a full disk */
  trim(eventsBefore: number, collectedBefore: number, keysBefore: number): boolean {
    if (!this.apply()) return false;
    const { tables, cursor, clock } = this.#parts;
    let more = false;
    let undoCounts = (): void => {};
    try {
      tables.transaction(() => {
        undoCounts = cursor.savepoint();
        more = cursor.trim(eventsBefore, collectedBefore, keysBefore);
        tables.setMeta('last', clock.now());
      });
      return more;
    } catch (error) {
      undoCounts();
      if (kindOf(error) === 'disk') return false;
      throw error;
    }
  }

  /** What the next image of this process needs; valid after {@link close}. */
  get handed(): HandedJournal {
    const { cursor, identity, clock } = this.#parts;
    const lines = this.#isRefused ? [] : this.#pending.lines;
    const moment = this.#momentOf(clock.now());
    const living = this.#existing().flatMap((change) => statementsOf(change, moment));
    return { head: cursor.head, applied: this.#applied, lines, living, identity: identity.facts };
  }

  /** Writes what is pending, and records a clean stop where that succeeds. */
  close(): void {
    const { tables, cursor, identity, clock } = this.#parts;
    if (this.apply()) {
      tables.transaction(() => tables.setMeta('last', clock.now()));
      identity.settle(cursor.head, this.#line);
    }
    if (this.#retry !== null) clearTimeout(this.#retry);
  }
}

/**
 * Ends this image of the daemon. A refused change is an error in the program, so the state in memory may be wrong. The next image begins
 * with the log and the kernel.
 */
function fatal(error: unknown): unknown {
  setImmediate(() => {
    throw error;
  });
  return error;
}
