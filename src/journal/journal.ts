import type { SQLInputValue } from 'node:sqlite';
import type { EventType } from '../../schemas/vocabulary.ts';
import type { Event } from '../model/event.ts';
import type { Gone, Handle, OpenDescription, Process } from '../model/process.ts';
import { Database, kindOf, NUMBERED, setAsideIn } from './database.ts';
import { Identity, type IdentityFacts, RESERVE } from './identity.ts';
import { InPlace, OutOfPlace } from './in-place.ts';
import { JournalClock, type StoredClock } from './journal-clock.ts';
import { type Line, Log } from './log.ts';
import { Mark } from './mark.ts';
import { Recent } from './recent.ts';
import { HANDLE_COLUMNS, type HandleRow, handleOf } from './rows.ts';
import { type Statement, statementsOf } from './statements.ts';
import { type TerminationChange, type TerminationFacts, terminationsOf } from './termination-rows.ts';
import { type StoredWatch, type WatchChange, watchesOf } from './watch-rows.ts';

/** An answer that is kept for whoever asks again with the same key. */
export interface StoredKey {
  client: string;
  key: string;
  /** What the request was. */
  fingerprint: string;
  /** The handle with which it goes. */
  handle: string;
  /** `null` while it is not known: the daemon died before it could answer. */
  answer: string | null;
}

/** One thing to write down. What is named goes to its table as it is then, and may have changed since. */
export type Change =
  | { write: 'process'; process: Process }
  | { write: 'handle'; handle: Handle }
  | { write: 'description'; description: OpenDescription }
  | { write: 'output'; description: OpenDescription }
  | { write: 'gone'; handle: Handle; gone: Gone; last: number }
  /** A spawn that came to nothing: as if it had never been written. */
  | { write: 'never'; handle: Handle }
  /** A handle that was written before its process was there has its seq. */
  | { write: 'placed'; handle: Handle; before: number }
  | { write: 'collected'; process: Process; client: string }
  | { write: 'key'; key: StoredKey }
  | WatchChange
  | TerminationChange
  | { write: 'event'; event: Event };

export interface EventQuery {
  /** `null`: of all clients. */
  client: string | null;
  /** Only of these; all of the client's where it is missing. That they are the client's own is for the caller to know. */
  handles?: readonly string[];
  types?: readonly EventType[];
  /** Exclusive. */
  since: number;
  limit: number;
}

export interface HandleQuery {
  /** `null`: of all clients. */
  client: string | null;
  /** Only ended ones, or only live ones. */
  ended?: boolean;
  labels: readonly (readonly [key: string, value: string])[];
  /** Only with a smaller seq. */
  before: number;
  limit: number;
}

/** What one image of the daemon hands to the next, so that nothing it holds depends on what has become of the files. */
export interface HandedJournal {
  /** How far seqs have come. */
  head: number;
  /** The number of the last log line that the tables have. */
  applied: number;
  /** The lines that they do not have. */
  lines: (Line & { number: number })[];
  /** Writes what lives to tables that have lost it. */
  living: Statement[];
  identity?: IdentityFacts | undefined;
}

/** Something that has happened to the journal, for the daemon's log. */
export interface Notice {
  what: 'damaged' | 'restored';
  reason: string;
  /** The other name of a damaged file. */
  setAside?: string;
}

export interface JournalOptions {
  /** Exists, is ours alone, and is locked. */
  directory: string;
  bootId: string;
  /** How many events are kept; older ones make a gap. */
  keepEvents: number;
  /** Where a mark of its progress is kept, outside of the directory; `null` for nowhere. */
  marks: string | null;
  /** By an earlier image of this process. */
  handed?: HandedJournal | undefined;
}

/** A change whose tables do not have it yet, with its line of the log and its moment. */
interface Pending {
  line: number;
  at: number;
  change: Change;
}

/** While nothing can be written, it is tried again this often. */
const RETRY_MS = 250;

/** How long changes may be in the log alone, and how many: one transaction for all of them costs a fraction of one for each. */
const APPLY_MS = 250;
const APPLY_CHANGES = 256;

/** How often it is checked, under load, that the log's file is in its place. */
const LOOK_MS = 20;

/** After how many characters of events a page ends: far beyond what a thousand usual ones have. */
const PAGE_BYTES = 4 * 2 ** 20;

/** How many events go at a time, so that it costs next to nothing each. */
const TRIM = 1000;

/**
 * The record of handles, endings and events. Every change is one {@link commit}: a line of the {@link Log}. Many lines of it go to
 * their tables in SQLite in one transaction: soon, before anything is read from them, and at the start of the next daemon if this one
 * dies before. What cannot be written (a full disk) is kept in memory, served from there, and written once the disk is back.
 */
export class Journal {
  readonly identity: Identity;
  readonly bootId: string;
  /** Told when all that waited for the disk has been written. */
  onRecovered: () => void = () => {};
  /** Told of what has happened to it. */
  onNotice: ((notice: Notice) => void) | null = null;
  /** The last of these notices, for the life of this image. */
  lastNotice: Notice | null = null;
  /** What lives, for a journal that must begin anew. */
  living: () => Iterable<Handle> = () => [];
  /** The watches, for the same. */
  watching: () => Change[] = () => [];
  /** The pending terminations, for the same. */
  terminating: () => Change[] = () => [];
  /** Why nothing can be written now, `null` while all is well. */
  fault: Error | null = null;

  readonly #db: Database;
  readonly #log: Log;
  readonly #clock: JournalClock;
  readonly #mark: Mark | null;
  readonly #inPlace = new InPlace();
  #nextLook = 0;
  readonly #keepEvents: number;
  /** What is not in its tables yet: in the log, or while the disk does not let, in memory alone. */
  #pending: Pending[] = [];
  #applying: NodeJS.Timeout | null = null;
  /** A change that SQLite refuses holds up all behind it: the log is left to the next image, which drops that one. */
  #refused = false;
  #retry: NodeJS.Timeout | null = null;
  readonly #recent = new Recent();
  #head = 0;
  /** Of processes and descriptions, the last one. Never behind the head, which a daemon that dies leaves far behind. */
  #numbers = 0;
  #oldest = 0;
  #eventCount = 0;
  /** The number of the newest line of the log, and of the last one that the tables have. */
  #line = 0;
  #applied = 0;
  /** Cursors up to this one are from another life of the node: from before its journal was restored from a backup. */
  #reset = 0;
  #notice: Notice | null = null;

  /** @throws {Error} where the file is of a later version, or cannot be opened */
  constructor({ directory, bootId, keepEvents, marks, handed }: JournalOptions) {
    this.bootId = bootId;
    this.#keepEvents = keepEvents;
    this.identity = new Identity(directory, handed?.identity ?? null);
    this.#db = this.#open(directory);
    this.#log = new Log(directory);
    const isNew = this.#db.version === 0;
    const continued = this.#replay();
    const stored = this.#storedClock();
    this.#clock = new JournalClock(bootId, stored);
    this.#reset = Number(this.#meta('reset') ?? 0);
    this.#mark = marks === null ? null : Mark.open(marks, directory);
    if (handed !== undefined && this.#takeOver(handed, isNew)) this.#count(handed.head);
    else {
      const restored = this.#notice === null ? this.#whyRestored(isNew, continued, stored !== null) : null;
      if (restored !== null) this.#begin(restored);
      else if (stored !== null && this.#mayHaveGoneOn(stored)) this.#count(farBeyond(this.identity.reserved));
      else this.#count(this.identity.reserved);
    }
    this.#describe();
    for (const path of [this.#db.path, this.#log.path, this.identity.path]) this.#inPlace.expect(path);
  }

  /**
   * Brings to the tables what an earlier daemon had in the log alone. Its lines are numbered, and the tables know the last one that they
   * have, so each comes to them once, also where that daemon died before it could empty the log. A line that SQLite refuses is what it
   * died of.
   * @returns whether the lines follow what the tables had
   */
  #replay(): boolean {
    if (this.#db.version === 0) this.#db.migrate();
    const { lines, damage } = this.#log.read();
    if (damage !== null) {
      this.#tell({ what: 'damaged', reason: damage.message, setAside: this.#log.setAside() });
      // Of some events nobody knows any more, so those before them make no whole either: a gap tells.
      this.#transaction(() => this.#forgetEvents());
    }
    // The lines of an older version are without numbers, and of its tables.
    const isNumbered = this.#db.version >= NUMBERED;
    this.#applied = isNumbered ? Number(this.#meta('applied') ?? 0) : 0;
    this.#line = this.#applied;
    let continued = true;
    for (const { number, statements } of lines) {
      if (number !== null && number <= this.#line) continue;
      if (number !== null && number > this.#line + 1) continued = false;
      try {
        this.#transaction(() => {
          this.#runAll(statements);
          if (number !== null && isNumbered) this.#setMeta('applied', number);
        });
      } catch (error) {
        if (kindOf(error) === 'disk') throw error;
      }
      if (number !== null) this.#line = number;
    }
    this.#db.migrate();
    this.#applied = this.#line;
    this.#log.clear();
    return continued;
  }

  /**
   * Goes on where an earlier image of this process was. Where the tables are not those that it wrote, they are set aside, and what
   * lives is written to new ones.
   * @returns false where the disk still does not let: then it is as if that image had died
   */
  #takeOver({ applied, lines, living }: HandedJournal, isNew: boolean): boolean {
    try {
      if (this.#line < applied) {
        const setAside = isNew ? {} : { setAside: this.#db.setAside() };
        if (this.#notice === null)
          this.#tell({
            what: 'damaged',
            reason: 'The journal was removed, or an older one was put in its place.',
            ...setAside,
          });
        this.#transaction(() => this.#runAll(living));
        this.#line = applied;
      }
      this.#transaction(() => {
        for (const { number, statements } of lines) {
          if (number <= this.#line) continue;
          this.#runAll(statements);
          this.#line = number;
        }
      });
      this.#applied = this.#line;
      return true;
    } catch (error) {
      if (kindOf(error) === 'disk') return false;
      throw error;
    }
  }

  /**
   * @param hadIdentity whether the tables were written by a version that has node.json
   * @returns how it is known that the files are of another time than what was last written to them; `null` where they are not
   */
  #whyRestored(isNew: boolean, continued: boolean, hadIdentity: boolean): string | null {
    const { isCopy, isNew: noIdentity, reserved, stoppedAt } = this.identity;
    const found = this.#mark?.found ?? null;
    if (isCopy) return 'node.json is a copy of the one that was written here.';
    if (noIdentity && hadIdentity) return 'node.json was missing.';
    if (isNew && !noIdentity && reserved > 0) return 'journal.sqlite was missing.';
    if (!continued) return 'journal.log does not follow journal.sqlite.';
    if (stoppedAt !== null && stoppedAt > this.#line) return 'journal.sqlite is older than node.json.';
    if (found !== null && (found.line > this.#line || found.head > Math.max(reserved, this.#used())))
      return 'It is older than what was written on this boot of the machine.';
    return null;
  }

  /**
   * Whether these files may be an older snapshot that nothing gives away: on another boot, or where the runtime directory was emptied,
   * nothing outside of them says how far they had come.
   */
  #mayHaveGoneOn({ boot }: StoredClock): boolean {
    if (boot !== this.bootId) return true;
    return this.#mark?.found === null && Number(this.#meta('marked') ?? 0) === 1;
  }

  /** Begins a life of its own, after a backup was restored. Whatever cursor a reader has, it is told of a gap. */
  #begin(reason: string): void {
    this.#tell({ what: 'restored', reason });
    this.#transaction(() => this.#forgetEvents());
    this.#line = Math.max(this.#line, this.#mark?.found?.line ?? 0, this.identity.stoppedAt ?? 0);
    this.#applied = this.#line;
    this.#count(farBeyond(Math.max(this.identity.reserved, this.#used(), this.#mark?.found?.head ?? 0)));
    this.#reset = this.#head;
  }

  #forgetEvents(): void {
    for (const table of ['events', 'gone', 'holes']) this.#run(`DELETE FROM ${table}`, []);
  }

  /** In their order. */
  #runAll(statements: readonly Statement[]): void {
    for (const [sql, values] of statements) this.#run(sql, values);
  }

  #transaction(work: () => void): void {
    this.#guarded(() => this.#db.transaction(work));
  }

  #open(directory: string): Database {
    try {
      return new Database(directory);
    } catch (error) {
      if (kindOf(error) !== 'damage') throw error;
      this.#tell({ what: 'damaged', reason: (error as Error).message, setAside: setAsideIn(directory) });
      return new Database(directory);
    }
  }

  /** Keeps a notice until there is somebody to be told. */
  #tell(notice: Notice): void {
    this.#notice = notice;
    this.lastNotice = notice;
  }

  /** What has happened before anybody could be told, once. */
  takeNotice(): Notice | null {
    const notice = this.#notice;
    this.#notice = null;
    return notice;
  }

  #meta(key: string): SQLInputValue | undefined {
    return this.#db.statement('SELECT value FROM meta WHERE key = ?').get(key)?.value;
  }

  #setMeta(key: string, value: string | number): void {
    this.#run('INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value', [key, value]);
  }

  #storedClock(): StoredClock | null {
    const boot = this.#meta('boot');
    if (boot === undefined) return null;
    return { boot: String(boot), base: Number(this.#meta('base')), last: Number(this.#meta('last')) };
  }

  /** Writes what the journal must know of itself, to tables that may be new. */
  #describe(): void {
    this.#transaction(() => {
      this.#setMeta('boot', this.#clock.boot);
      this.#setMeta('base', this.#clock.base);
      this.#setMeta('last', this.now());
      this.#setMeta('applied', this.#applied);
      this.#setMeta('marked', Number(this.#mark !== null));
      this.#setMeta('reset', this.#reset);
    });
    this.#mark?.write({ line: this.#applied, head: this.#head });
  }

  /** The moment by which everything in here ages, in milliseconds; see {@link JournalClock}. */
  now(): number {
    return this.#clock.now();
  }

  #number(sql: string): number {
    return this.#guarded(() => Number(this.#db.statement(sql).get()?.n ?? 0));
  }

  /** The newest seq that the tables tell of. */
  #used(): number {
    return Math.max(this.#number('SELECT max(seq) n FROM events'), this.#number('SELECT max(seq) n FROM handles'));
  }

  /** @param reserved no seq up to this one may be used again */
  #count(reserved: number): void {
    const used = this.#used();
    this.#head = Math.max(used, reserved);
    this.#numbers = this.#number(
      'SELECT max(id) n FROM processes UNION SELECT max(description) n FROM handles ORDER BY n DESC LIMIT 1',
    );
    if (used > 0 && used < this.#head) this.#run('INSERT OR IGNORE INTO holes VALUES (?, ?)', [used + 1, this.#head]);
    this.identity.reserve(this.#head);
    this.#oldest = this.#number('SELECT min(seq) n FROM events') || this.#head + 1;
    this.#eventCount = this.#number('SELECT count(*) n FROM events');
  }

  /** This node's name: with another one, cursors mean nothing. */
  get node(): string {
    return this.identity.node;
  }

  /** The seq of the newest event, 0 before the first. */
  get head(): number {
    return this.#head;
  }

  /** The seq of the oldest event that is still there; the next one's where none is. */
  get oldest(): number {
    return this.#oldest;
  }

  /**
   * What a reader that has come so far has missed for ever: what retention has removed, what an earlier daemon told and
   * died before it could write it down, and with `reset` what another life of the node had.
   */
  gapAfter(since: number): { from: number; to: number; reset?: true } | null {
    if (since < this.#reset) return { from: since + 1, to: Math.max(this.#reset, this.#oldest - 1), reset: true };
    if (since < this.#oldest - 1) return { from: since + 1, to: this.#oldest - 1 };
    // Holes are made at the start alone, so nothing of them is pending.
    const hole = this.#read<{ last: number }>('SELECT last FROM holes WHERE first <= ? AND last > ?', [
      since,
      since,
    ])[0];
    return hole === undefined ? null : { from: since + 1, to: hole.last };
  }

  /** The next event's seq: it only grows and is never used twice. */
  nextSeq(): number {
    this.#head += 1;
    return this.#head;
  }

  /** A number for a process or a description, which no other has had: not even of what an earlier daemon left behind. */
  takeNumber(): number {
    this.#numbers = Math.max(this.#numbers, this.#head) + 1;
    return this.#numbers;
  }

  /**
   * Writes changes, all of them or none. Never fails for the disk's sake: look at {@link fault} where it matters.
   * @returns whether they are on disk
   */
  commit(changes: readonly Change[]): boolean {
    const at = this.now();
    this.#line += 1;
    for (const change of changes) {
      if (change.write === 'process' && change.process.ending !== null) change.process.endedAt ??= at;
      this.#recent.note(change);
      this.#pending.push({ line: this.#line, at, change });
    }
    if (this.fault !== null || !this.#append(changes, at)) return this.apply();
    if (this.#pending.length < APPLY_CHANGES) this.#applying ??= setTimeout(this.#applyNow, APPLY_MS);
    else if (this.#pending.length - changes.length < APPLY_CHANGES) setImmediate(this.#applyNow);
    return true;
  }

  /** @returns false where that cannot be written, for whatever reason */
  #append(changes: readonly Change[], at: number): boolean {
    if (!this.#isLogInPlace()) return false;
    try {
      const statements = changes.flatMap((change) => statementsOf(change, { boot: this.bootId, at }));
      this.#log.append({ number: this.#line, statements });
      this.identity.reserve(this.#head);
      return true;
    } catch {
      return false;
    }
  }

  /** Looks no more often than {@link LOOK_MS}: under load, looking at each line costs as much as writing it. */
  #isLogInPlace(): boolean {
    const now = performance.now();
    if (now < this.#nextLook) return true;
    this.#nextLook = now + LOOK_MS;
    return this.#inPlace.missing([this.#log.path]) === null;
  }

  readonly #applyNow = (): void => {
    try {
      this.apply();
    } catch {
      // A fault of ours, which is told as such.
    }
  };

  /**
   * Brings to the tables all that is not there yet.
   * @returns false where the disk does not let
   */
  apply(): boolean {
    if (this.#applying !== null) clearTimeout(this.#applying);
    this.#applying = null;
    if (this.#pending.length === 0 || this.#refused) return this.fault === null;
    const recovering = this.fault !== null;
    const counted = { events: this.#eventCount, oldest: this.#oldest };
    try {
      this.#guarded(() => this.#requireFiles());
      this.#transaction(() => {
        for (const pending of latest(this.#pending)) this.#write(pending);
        this.#setMeta('applied', this.#line);
        if (this.#eventCount >= this.#keepEvents + TRIM) this.#trim(() => true);
      });
      this.identity.reserve(this.#head);
    } catch (error) {
      this.#eventCount = counted.events;
      this.#oldest = counted.oldest;
      if (kindOf(error) !== 'disk' && !(error instanceof OutOfPlace)) {
        this.#refused = true;
        throw fatal(error);
      }
      this.#fail(error as Error);
      return false;
    }
    this.#pending = [];
    this.#applied = this.#line;
    this.fault = null;
    this.#emptyLog();
    this.#mark?.write({ line: this.#applied, head: this.#head });
    const notice = this.onNotice && this.takeNotice();
    if (notice !== null) this.onNotice?.(notice);
    if (recovering) this.onRecovered();
    return true;
  }

  /** Nothing can be written now: it is tried again until it can. */
  #fail(error: Error): void {
    this.fault = error;
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#applyNow();
    }, RETRY_MS);
  }

  /** Lines that are left there are known as done by their numbers. */
  #emptyLog(): void {
    try {
      this.#log.clear();
    } catch {
      // It is tried again with the next one.
    }
  }

  /**
   * Has the files looked at, and nothing new taken on where they are not in their places.
   * @returns why nothing can be written; `null` where all is well
   */
  check(): Error | null {
    if (this.fault === null)
      try {
        this.#guarded(() => this.#requireFiles());
      } catch (error) {
        this.#fail(error as Error);
      }
    return this.fault;
  }

  /** @throws {OutOfPlace} where one was removed or replaced; as SQLite would, where the tables were written over */
  #requireFiles(): void {
    const missing = this.#inPlace.missing();
    if (missing !== null) throw new OutOfPlace(missing);
    this.#db.requireHeader();
  }

  /** Does something with the file; one that turns out to be damaged is set aside, and it is done with a new one. */
  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (kindOf(error) !== 'damage') throw error;
      this.#replace(error as Error);
      return work();
    }
  }

  #replace(error: Error): void {
    const setAside = this.#db.setAside();
    this.#inPlace.expect(this.#db.path);
    this.#recent.clear();
    this.#oldest = this.#head + 1;
    this.#eventCount = 0;
    // What lives goes on; its handles are written again, and whatever was waiting comes after.
    const at = this.now();
    const living = this.#alive().map((change) => ({ line: this.#applied, at, change }));
    this.#pending = [...living, ...this.#pending];
    // Events that nobody has been told of are not in the gap.
    const waiting = this.#pending.find(({ change }) => change.write === 'event')?.change as
      | Extract<Change, { write: 'event' }>
      | undefined;
    if (waiting !== undefined) this.#oldest = waiting.event.seq;
    this.#tell({ what: 'damaged', reason: error.message, setAside });
    this.#describe();
    // Whoever came upon the damage may have nothing to write.
    this.#applying ??= setTimeout(this.#applyNow, APPLY_MS);
  }

  /** All that is written of what lives. */
  #alive(): Change[] {
    const handles = [...this.living()].flatMap((handle): Change[] => [
      { write: 'process', process: handle.process },
      { write: 'handle', handle },
    ]);
    return [...handles, ...this.watching(), ...this.terminating()];
  }

  #write({ at, change }: Pending): void {
    this.#runAll(statementsOf(change, { boot: this.bootId, at }));
    if (change.write === 'event') this.#eventCount += 1;
  }

  #run(sql: string, values: Statement[1]): void {
    this.#db.statement(sql).run(...values);
  }

  /** What the next image of this process must have; to be asked for after {@link close}. */
  get handed(): HandedJournal {
    const boot = this.bootId;
    const pending = this.#refused ? [] : this.#pending;
    const lines = [...Map.groupBy(pending, ({ line }) => line)].map(([number, changes]) => ({
      number,
      statements: changes.flatMap(({ at, change }) => statementsOf(change, { boot, at })),
    }));
    const living = this.#alive().flatMap((change) => statementsOf(change, { boot, at: this.now() }));
    return { head: this.#head, applied: this.#applied, lines, living, identity: this.identity.facts };
  }

  /**
   * Removes the oldest events, as many as go at a time, while they are to go.
   * @returns whether there may be more to remove
   */
  #trim(isOld: (at: number) => boolean): boolean {
    const oldest = this.#db.statement(`SELECT seq, at FROM events ORDER BY seq LIMIT ${TRIM + 1}`).all() as unknown as {
      seq: number;
      at: number;
    }[];
    const kept = oldest.findIndex(({ at }, index) => index === TRIM || !isOld(at));
    const count = kept === -1 ? oldest.length : kept;
    if (count === 0) return false;
    const from = kept === -1 ? this.#head + 1 : oldest[kept]!.seq;
    this.#run('DELETE FROM events WHERE seq < ?', [from]);
    this.#run('DELETE FROM gone WHERE last < ?', [from]);
    this.#run('DELETE FROM holes WHERE last < ?', [from]);
    this.#eventCount -= count;
    this.#oldest = from;
    return count === TRIM;
  }

  /**
   * Removes events from before a moment, some at a time, and notes of collection from before another that no handle needs
   * (a parked wait may collect after its handle was closed), and keys from before a third one that outlived their handle. On the
   * journal's clock.
   * @returns whether there may be more events or keys to remove; false where the disk does not let
   */
  trim(eventsBefore: number, collectedBefore: number, keysBefore: number): boolean {
    let more = false;
    if (!this.apply()) return false;
    try {
      this.#transaction(() => {
        more = this.#trim((at) => at < eventsBefore);
        this.#run('DELETE FROM collected WHERE at < ? AND process NOT IN (SELECT id FROM processes)', [
          collectedBefore,
        ]);
        const { changes } = this.#db.statement(OLD_KEYS).run(keysBefore);
        more ||= Number(changes) === TRIM;
        this.#setMeta('last', this.now());
      });
      return more;
    } catch (error) {
      if (kindOf(error) === 'disk') return false;
      throw error;
    }
  }

  /** Events in order, from disk and then from what still waits for it: so many, and of so many bytes, as a page takes. */
  events(query: EventQuery): { events: Event[]; more: boolean } {
    const { client, handles, types, since, limit } = query;
    const where = ['seq > ?'];
    const values: SQLInputValue[] = [since];
    const oneOf = (column: string, wanted: readonly string[]): void => {
      where.push(`${column} IN (SELECT value FROM json_each(?))`);
      values.push(JSON.stringify(wanted));
    };
    // A handle belongs to one client, so its id says enough, and the index by handle serves.
    if (handles !== undefined) oneOf('handle', handles);
    else if (client !== null) {
      where.push('client = ?');
      values.push(client);
    }
    if (types !== undefined) oneOf('type', types);
    const sql = `SELECT seq, client, handle, type, at, frame FROM events WHERE ${where.join(' AND ')} ORDER BY seq LIMIT ?`;
    let bytes = 0;
    const isEnough = ({ frame }: Event): boolean => {
      bytes += frame.length;
      return bytes >= PAGE_BYTES;
    };
    const stored = this.#all<Event>(sql, [...values, limit], isEnough);
    if (stored.length === limit || bytes >= PAGE_BYTES) return { events: stored, more: true };
    const waiting = this.#waiting('event')
      .map(({ event }) => event)
      .filter(
        (event) =>
          event.seq > since &&
          (handles === undefined ? client === null || event.client === client : handles.includes(event.handle)) &&
          (types === undefined || types.includes(event.type)),
      );
    const enough = waiting.slice(0, limit - stored.length);
    const last = enough.findIndex(isEnough);
    const events = [...stored, ...(last === -1 ? enough : enough.slice(0, last + 1))];
    return { events, more: last !== -1 || events.length === limit };
  }

  /**
   * Rows as they are in the tables.
   * @param isEnough asked with each row in turn; the one for which it is so is the last
   */
  #read<T>(sql: string, values: SQLInputValue[], isEnough?: (row: T) => boolean): T[] {
    const rowsOf = (): T[] => {
      const statement = this.#db.statement(sql);
      if (isEnough === undefined) return statement.all(...values) as unknown as T[];
      const rows: T[] = [];
      for (const row of statement.iterate(...values) as unknown as Iterable<T>) {
        rows.push(row);
        if (isEnough(row)) break;
      }
      return rows;
    };
    const before = this.#notice;
    const rows = this.#guarded(rowsOf);
    if (this.#notice === before) return rows;
    // There is another file, and what lives goes there first.
    this.apply();
    return rowsOf();
  }

  /** The same, once all is there that can be. */
  #all<T>(sql: string, values: SQLInputValue[], isEnough?: (row: T) => boolean): T[] {
    if (this.fault === null) this.apply();
    return this.#read(sql, values, isEnough);
  }

  #get<T>(sql: string, values: SQLInputValue[]): T | undefined {
    return this.#all<T>(sql, values)[0];
  }

  /** What still waits for the disk, of one kind. */
  #waiting<W extends Change['write']>(write: W): Extract<Change, { write: W }>[] {
    if (this.fault === null) this.apply();
    if (this.#pending.length === 0) return [];
    return this.#pending
      .map(({ change }) => change)
      .filter((change): change is Extract<Change, { write: W }> => change.write === write);
  }

  /** An open handle, as it was written; `null` where there is none. */
  handle(id: string): Handle | null {
    const recent = this.#recent.handle(id);
    if (recent !== undefined) return recent;
    if (this.#waiting('gone').some(({ handle }) => handle.id === id)) return null;
    const waiting = this.#waiting('handle').findLast(({ handle }) => handle.id === id);
    if (waiting !== undefined) return waiting.handle;
    const row = this.#get<HandleRow>(`${HANDLE_COLUMNS} WHERE h.id = ?`, [id]);
    return row === undefined ? null : handleOf(row);
  }

  /** A handle that is gone, while its events are there. */
  gone(id: string): { client: string; seq: number; how: Gone } | null {
    const waiting = this.#waiting('gone').find(({ handle }) => handle.id === id);
    if (waiting !== undefined) return { client: waiting.handle.client, seq: waiting.handle.seq, how: waiting.gone };
    return this.#get('SELECT client, seq, how FROM gone WHERE id = ?', [id]) ?? null;
  }

  /** Whether there is an open handle on a process, by the journal's number of it. */
  holds(process: number): boolean {
    return this.#get('SELECT 1 FROM handles WHERE process = ? LIMIT 1', [process]) !== undefined;
  }

  /** The open handles on a process. */
  handlesOf(process: Process): Handle[] {
    const rows = this.#all<HandleRow>(`${HANDLE_COLUMNS} WHERE h.process = ? ORDER BY h.seq`, [process.id]);
    const handles = new Map(rows.map((row) => [row.id, handleOf(row)]));
    // While the disk is full the tables are behind: what was closed since is still in them.
    for (const { handle } of this.#waiting('handle'))
      if (handle.process.id === process.id) handles.set(handle.id, handle);
    for (const { handle } of this.#waiting('gone')) handles.delete(handle.id);
    return [...handles.values()];
  }

  /** The ids of a client's handles, newest first. */
  list({ client, ended, labels, before, limit }: HandleQuery): { id: string; seq: number }[] {
    // One that is only about to be has a negative seq.
    const where = ['h.seq < ?', 'h.seq >= 0'];
    const values: SQLInputValue[] = [before];
    if (client !== null) {
      where.push('h.client = ?');
      values.push(client);
    }
    if (ended !== undefined) where.push(`p.state ${ended ? '=' : '<>'} 'exited'`);
    for (const [key, value] of labels) {
      where.push('h.seq IN (SELECT handle FROM labels WHERE client = coalesce(?, client) AND key = ? AND value = ?)');
      values.push(client, key, value);
    }
    const sql = `SELECT h.id, h.seq FROM handles h JOIN processes p ON p.id = h.process
      WHERE ${where.join(' AND ')} ORDER BY h.seq DESC LIMIT ?`;
    return this.#all(sql, [...values, limit]);
  }

  /** Whether a client has collected the status of a process. */
  isCollected(process: Process, client: string): boolean {
    const collectors = this.#recent.collectorsOf(process);
    if (collectors !== undefined) return collectors.has(client);
    return (
      this.#get('SELECT 1 FROM collected WHERE process = ? AND client = ?', [process.id, client]) !== undefined ||
      this.#waiting('collected').some((change) => change.process.id === process.id && change.client === client)
    );
  }

  /** What a client's request with this key was, and how it was answered. */
  key(client: string, key: string): StoredKey | null {
    const waiting = this.#waiting('key').findLast((change) => change.key.client === client && change.key.key === key);
    if (waiting !== undefined) return waiting.key;
    const columns = 'client, key, fingerprint, handle, answer';
    return this.#get(`SELECT ${columns} FROM keys WHERE client = ? AND key = ?`, [client, key]) ?? null;
  }

  /** How much is kept of keys, of one client and of all: a unit for each key, and one for every whole KiB of its answer. */
  keyUnits(client: string): { own: number; all: number } {
    const sql =
      'SELECT coalesce(sum(units) FILTER (WHERE client = ?), 0) own, coalesce(sum(units), 0) "all" FROM key_use';
    return this.#get(sql, [client])!;
  }

  /** Every open handle on a process of whose end not all is known, with the boot that its pid and inode belong to. */
  unended(): { handle: Handle; boot: string }[] {
    return this.#rows(`WHERE h.process IN (SELECT id FROM processes WHERE ended_at IS NULL
      UNION ALL SELECT id FROM processes WHERE ending ->> 'reaped' = 0)`);
  }

  /** Every open handle whose captured output has not reached its end. */
  capturing(): Handle[] {
    return this.#rows('WHERE h.output > 0 AND h.output < 4').map(({ handle }) => handle);
  }

  /** Every watch, with what it has nothing more to do with of what this boot has begun. */
  watches(): StoredWatch[] {
    return watchesOf((sql, values) => this.#all(sql, values), this.bootId);
  }

  /** Every termination that is pending in this boot. */
  terminations(): TerminationFacts[] {
    return terminationsOf((sql, values) => this.#all(sql, values), this.bootId);
  }

  /** Whose each description with captured output is. */
  outputs(): Map<number, string> {
    const sql = 'SELECT description, client FROM handles WHERE output > 0 ORDER BY seq DESC';
    const rows = this.#all<{ description: number; client: string }>(sql, []);
    return new Map(rows.map(({ description, client }) => [description, client])); // the first one's
  }

  /** @param where what few rows fit: these are sorted, rather than all looked through in their order, hence the `+` */
  #rows(where: string): { handle: Handle; boot: string }[] {
    const rows = this.#all<HandleRow>(`${HANDLE_COLUMNS} ${where} ORDER BY +h.seq`, []);
    const processes = new Map<number, Process>();
    const descriptions = new Map<number, OpenDescription>();
    return rows.map((row) => ({ handle: handleOf(row, processes, descriptions), boot: row.boot }));
  }

  /**
   * Handles whose time is over: collected before one moment, or ended before another without having been collected. On the
   * journal's clock.
   */
  expired(collectedBefore: number, endedBefore: number, limit: number): Handle[] {
    const collected = this.#all<HandleRow>(
      `${HANDLE_COLUMNS} JOIN collected c ON c.process = h.process AND c.client = h.client WHERE c.at < ? LIMIT ?`,
      [collectedBefore, limit],
    );
    const uncollected = this.#all<HandleRow>(
      `${HANDLE_COLUMNS} LEFT JOIN collected c ON c.process = h.process AND c.client = h.client
       WHERE p.ended_at < ? AND c.at IS NULL LIMIT ?`,
      [endedBefore, limit],
    );
    return [...collected, ...uncollected].slice(0, limit).map((row) => handleOf(row));
  }

  /** Since when the longest kept thing of each kind is there, on the journal's clock; `null` where there is none. */
  oldestKept(): { collected: number | null; ended: number | null; event: number | null; key: number | null } {
    const first = (sql: string): number | null => this.#get<{ at: number | null }>(sql, [])?.at ?? null;
    return {
      collected: first('SELECT min(at) at FROM collected'),
      ended: first('SELECT min(ended_at) at FROM processes WHERE ended_at IS NOT NULL'),
      event: first('SELECT at FROM events ORDER BY seq LIMIT 1'),
      key: first('SELECT min(at) at FROM keys'),
    };
  }

  /** Writes what is left and closes the file. */
  close(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.apply()) {
      this.#transaction(() => this.#setMeta('last', this.now()));
      this.identity.settle(this.#head, this.#line);
    }
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#log.close();
    this.#db.close();
    this.#mark?.close();
  }
}

/** At most so many of those whose time is over and whose handle, or watch, is not there any more. */
const OLD_KEYS = `DELETE FROM keys WHERE (client, key) IN (
  SELECT client, key FROM keys k WHERE at < ? AND NOT EXISTS (SELECT 1 FROM handles h WHERE h.id = k.handle)
    AND NOT EXISTS (SELECT 1 FROM watches w WHERE w.id = k.handle) LIMIT ${TRIM})`;

/** Years in which a wall clock may be right, in Unix milliseconds. */
const [EARLIEST, LATEST] = [Date.UTC(2020), Date.UTC(2100)];

/**
 * A seq beyond all that this node can have used so far: a hundred for each millisecond of the wall clock, which no node
 * reaches. Where that clock is not set, as far as is reserved at a time. Such a seq has 15 digits.
 */
function farBeyond(seq: number): number {
  const now = Date.now();
  return Math.max(seq + RESERVE, now > EARLIEST && now < LATEST ? now * 100 : 0);
}

/** Each process once: it is written as it is now. */
function* latest(pending: readonly Pending[]): Generator<Pending> {
  const written = new Set<Process>();
  for (const each of pending) {
    if (each.change.write === 'process') {
      if (written.has(each.change.process)) continue;
      written.add(each.change.process);
    }
    yield each;
  }
}

/**
 * A change that SQLite refuses is a fault of ours, and what is in memory is not to be trusted any more. Whatever was not
 * written is still in the kernel, so the daemon begins anew from both.
 */
function fatal(error: unknown): unknown {
  setImmediate(() => {
    throw error;
  });
  return error;
}
