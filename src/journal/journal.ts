import type { SQLInputValue } from 'node:sqlite';
import type { Event, EventType } from '../feed/event.ts';
import type { Gone, Handle } from '../handles/handle.ts';
import type { Description } from '../processes/description.ts';
import type { Process } from '../processes/process.ts';
import { Database, kindOf, setAsideIn } from './database.ts';
import { Identity } from './identity.ts';
import { Log } from './log.ts';
import { Recent } from './recent.ts';
import { HANDLE_COLUMNS, type HandleRow, handleOf } from './rows.ts';
import { type Statement, statementsOf } from './statements.ts';
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
  | { write: 'description'; description: Description }
  | { write: 'output'; description: Description }
  | { write: 'gone'; handle: Handle; gone: Gone; last: number }
  /** A spawn that came to nothing: as if it had never been written. */
  | { write: 'never'; handle: Handle }
  /** A handle that was written before its process was there has its seq. */
  | { write: 'placed'; handle: Handle; before: number }
  | { write: 'collected'; process: Process; client: string }
  | { write: 'key'; key: StoredKey }
  | WatchChange
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

/** What an earlier image of this process could not write, and how far its seqs had come. */
export interface Unwritten {
  head: number;
  statements: Statement[];
}

export interface JournalOptions {
  /** Exists, is ours alone, and is locked. */
  directory: string;
  bootId: string;
  /** How many events are kept; older ones make a gap. */
  keepEvents: number;
  unwritten?: Unwritten | undefined;
}

/** While nothing can be written, it is tried again this often. */
const RETRY_MS = 250;

/** How long changes may be in the log alone, and how many: one transaction for all of them costs a fraction of one for each. */
const APPLY_MS = 250;
const APPLY_CHANGES = 256;

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
  /** Told when the file was damaged and there is another, and which name it bears now. */
  onDamaged: ((error: Error, setAside: string) => void) | null = null;
  /** What lives, for a journal that must begin anew. */
  living: () => Iterable<Handle> = () => [];
  /** The watches, for the same. */
  watching: () => Change[] = () => [];
  /** Why nothing can be written now, `null` while all is well. */
  fault: Error | null = null;

  readonly #db: Database;
  readonly #log: Log;
  readonly #keepEvents: number;
  /** What is not in its tables yet: in the log, or while the disk does not let, in memory alone. */
  #pending: Change[] = [];
  #applying: NodeJS.Timeout | null = null;
  /** A change that SQLite refuses holds up all behind it: the log is left to the next image, which drops that one. */
  #refused = false;
  #retry: NodeJS.Timeout | null = null;
  readonly #recent = new Recent();
  #head = 0;
  /** Of processes and descriptions, the last one. Never behind the head, which a daemon that dies leaves far behind. */
  #number = 0;
  #oldest = 0;
  #eventCount = 0;
  #damage: [Error, string] | null = null;

  /** @throws {Error} where the file is of a later version, or cannot be opened */
  constructor({ directory, bootId, keepEvents, unwritten }: JournalOptions) {
    this.bootId = bootId;
    this.#keepEvents = keepEvents;
    this.identity = new Identity(directory);
    this.#db = this.#open(directory);
    this.#log = new Log(directory);
    this.#replay();
    const cleanHead = unwritten !== undefined && this.#catchUp(unwritten.statements) ? unwritten.head : null;
    this.#count(cleanHead ?? this.identity.reserved);
  }

  /** Brings to the tables what an earlier daemon had in the log alone. A line that SQLite refuses is what it died of. */
  #replay(): void {
    const { lines, damage } = this.#log.read();
    if (damage !== null) {
      this.#damage = [damage, this.#log.setAside()];
      // Of some events nobody knows any more, so those before them make no whole either: a gap tells.
      this.#transaction(() => {
        for (const table of ['events', 'gone', 'holes']) this.#run(`DELETE FROM ${table}`, []);
      });
    }
    for (const statements of lines)
      try {
        this.#transaction(() => this.#runAgain(statements));
      } catch (error) {
        if (kindOf(error) === 'disk') throw error;
      }
    this.#log.clear();
  }

  /**
   * Takes up what an earlier image of this process could not write; the first of it may have been in the log.
   * @returns false where the disk still does not let: then it is as if that image had died
   */
  #catchUp(statements: readonly Statement[]): boolean {
    try {
      this.#transaction(() => this.#runAgain(statements));
      return true;
    } catch (error) {
      if (kindOf(error) === 'disk') return false;
      throw error;
    }
  }

  /** In their order, these come to the same however often they are run. */
  #runAgain(statements: readonly Statement[]): void {
    for (const [sql, values] of statements) this.#run(sql.replace(/^INSERT INTO/, 'INSERT OR REPLACE INTO'), values);
  }

  #transaction(work: () => void): void {
    this.#guarded(() => this.#db.transaction(work));
  }

  #open(directory: string): Database {
    try {
      return new Database(directory);
    } catch (error) {
      if (kindOf(error) !== 'damage') throw error;
      this.#damage = [error as Error, setAsideIn(directory)];
      return new Database(directory);
    }
  }

  /** What was found damaged before anybody could be told, once. */
  takeDamage(): [error: Error, setAside: string] | null {
    const damage = this.#damage;
    this.#damage = null;
    return damage;
  }

  /** @param reserved no seq up to this one may be used again */
  #count(reserved: number): void {
    const number = (sql: string): number => this.#guarded(() => Number(this.#db.statement(sql).get()?.n ?? 0));
    const used = Math.max(number('SELECT max(seq) n FROM events'), number('SELECT max(seq) n FROM handles'));
    this.#head = Math.max(used, reserved);
    const numbers =
      'SELECT max(id) n FROM processes UNION SELECT max(description) n FROM handles ORDER BY n DESC LIMIT 1';
    this.#number = number(numbers);
    if (used > 0 && used < this.#head) this.#run('INSERT OR IGNORE INTO holes VALUES (?, ?)', [used + 1, this.#head]);
    this.identity.reserve(this.#head);
    this.#oldest = number('SELECT min(seq) n FROM events') || this.#head + 1;
    this.#eventCount = number('SELECT count(*) n FROM events');
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
   * What a reader that has come so far has missed for ever: what retention has removed, and what an earlier daemon told and
   * died before it could write it down.
   */
  gapAfter(since: number): { from: number; to: number } | null {
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
    this.#number = Math.max(this.#number, this.#head) + 1;
    return this.#number;
  }

  /**
   * Writes changes, all of them or none. Never fails for the disk's sake: look at {@link fault} where it matters.
   * @returns whether they are on disk
   */
  commit(changes: readonly Change[]): boolean {
    for (const change of changes) this.#recent.note(change);
    this.#pending.push(...changes);
    if (this.fault !== null || !this.#append(changes)) return this.apply();
    if (this.#pending.length < APPLY_CHANGES) this.#applying ??= setTimeout(this.#applyNow, APPLY_MS);
    else if (this.#pending.length - changes.length < APPLY_CHANGES) setImmediate(this.#applyNow);
    return true;
  }

  /** @returns false where that cannot be written, for whatever reason */
  #append(changes: readonly Change[]): boolean {
    try {
      this.#log.append(changes.flatMap((change) => statementsOf(change, this.bootId)));
      this.identity.reserve(this.#head);
      return true;
    } catch {
      return false;
    }
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
      this.#transaction(() => {
        for (const change of latest(this.#pending)) this.#write(change);
        if (this.#eventCount >= this.#keepEvents + TRIM) this.#trim(() => true);
      });
      this.identity.reserve(this.#head);
    } catch (error) {
      this.#eventCount = counted.events;
      this.#oldest = counted.oldest;
      if (kindOf(error) !== 'disk') {
        this.#refused = true;
        throw fatal(error);
      }
      this.fault = error as Error;
      this.#retry ??= setTimeout(() => {
        this.#retry = null;
        this.#applyNow();
      }, RETRY_MS);
      return false;
    }
    this.#log.clear();
    this.#pending = [];
    this.fault = null;
    const damage = this.onDamaged && this.takeDamage();
    if (damage !== null) this.onDamaged?.(...damage);
    if (recovering) this.onRecovered();
    return true;
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
    this.#recent.clear();
    this.#oldest = this.#head + 1;
    this.#eventCount = 0;
    // What lives goes on; its handles are written again, and whatever was waiting comes after.
    const living = [...this.living()].flatMap((handle): Change[] => [
      { write: 'process', process: handle.process },
      { write: 'handle', handle },
    ]);
    this.#pending = [...living, ...this.watching(), ...this.#pending];
    // Events that nobody has been told of are not in the gap.
    const waiting = this.#pending.find((change) => change.write === 'event');
    if (waiting !== undefined) this.#oldest = waiting.event.seq;
    this.#damage = [error, setAside];
  }

  #write(change: Change): void {
    for (const [sql, values] of statementsOf(change, this.bootId)) this.#run(sql, values);
    if (change.write === 'event') this.#eventCount += 1;
  }

  #run(sql: string, values: Statement[1]): void {
    this.#db.statement(sql).run(...values);
  }

  /** What could not be written so far, for the next image of this process. */
  get unwritten(): Unwritten {
    const pending = this.#refused ? [] : this.#pending;
    return { head: this.#head, statements: pending.flatMap((change) => statementsOf(change, this.bootId)) };
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
   * (a parked wait may collect after its handle was closed). Unix milliseconds.
   * @returns whether there may be more events to remove; false where the disk does not let
   */
  trim(eventsBefore: number, collectedBefore: number): boolean {
    let more = false;
    if (!this.apply()) return false;
    try {
      this.#transaction(() => {
        more = this.#trim((at) => at < eventsBefore);
        this.#run('DELETE FROM collected WHERE at < ? AND process NOT IN (SELECT id FROM processes)', [
          collectedBefore,
        ]);
      });
      return more;
    } catch (error) {
      if (kindOf(error) === 'disk') return false;
      throw error;
    }
  }

  /** Events in order, from disk and then from what still waits for it. */
  events(query: EventQuery): Event[] {
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
    const stored = this.#all<Event>(sql, [...values, limit]);
    const waiting = this.#waiting('event')
      .map(({ event }) => event)
      .filter(
        (event) =>
          event.seq > since &&
          (handles === undefined ? client === null || event.client === client : handles.includes(event.handle)) &&
          (types === undefined || types.includes(event.type)),
      );
    return waiting.length === 0 ? stored : [...stored, ...waiting].slice(0, limit);
  }

  /** Rows as they are in the tables. */
  #read<T>(sql: string, values: SQLInputValue[]): T[] {
    const before = this.#damage;
    const rows = this.#guarded(() => this.#db.statement(sql).all(...values)) as unknown as T[];
    if (this.#damage === before) return rows;
    // There is another file, and what lives goes there first.
    this.apply();
    return this.#db.statement(sql).all(...values) as unknown as T[];
  }

  /** The same, once all is there that can be. */
  #all<T>(sql: string, values: SQLInputValue[]): T[] {
    if (this.fault === null) this.apply();
    return this.#read(sql, values);
  }

  #get<T>(sql: string, values: SQLInputValue[]): T | undefined {
    return this.#all<T>(sql, values)[0];
  }

  /** What still waits for the disk, of one kind. */
  #waiting<W extends Change['write']>(write: W): Extract<Change, { write: W }>[] {
    if (this.fault === null) this.apply();
    if (this.#pending.length === 0) return [];
    return this.#pending.filter((change): change is Extract<Change, { write: W }> => change.write === write);
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

  /** The open handles on a process. */
  handlesOf(process: Process): Handle[] {
    const rows = this.#all<HandleRow>(`${HANDLE_COLUMNS} WHERE h.process = ? ORDER BY h.seq`, [process.id]);
    return rows.map((row) => handleOf(row));
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
    return this.#get('SELECT * FROM keys WHERE client = ? AND key = ?', [client, key]) ?? null;
  }

  /** Every open handle on a process of whose end not all is known, with the boot that its pid and inode belong to. */
  unended(): { handle: Handle; boot: string }[] {
    return this.#rows('WHERE h.process IN (SELECT id FROM processes WHERE ended_at IS NULL)');
  }

  /** Every open handle whose captured output has not reached its end. */
  capturing(): Handle[] {
    return this.#rows('WHERE h.output > 0 AND h.output < 4').map(({ handle }) => handle);
  }

  /** Every watch, with what it has nothing more to do with of what this boot has begun. */
  watches(): StoredWatch[] {
    return watchesOf((sql, values) => this.#all(sql, values), this.bootId);
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
    const descriptions = new Map<number, Description>();
    return rows.map((row) => ({ handle: handleOf(row, processes, descriptions), boot: row.boot }));
  }

  /**
   * Handles whose time is over: collected before one moment, or ended before another without having been collected. Unix
   * milliseconds.
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

  /** Since when the longest kept thing of each kind is there, in Unix milliseconds; `null` where there is none. */
  oldestKept(): { collected: number | null; ended: number | null; event: number | null } {
    const first = (sql: string): number | null => this.#get<{ at: number | null }>(sql, [])?.at ?? null;
    return {
      collected: first('SELECT min(at) at FROM collected'),
      ended: first('SELECT min(ended_at) at FROM processes WHERE ended_at IS NOT NULL'),
      event: first('SELECT at FROM events ORDER BY seq LIMIT 1'),
    };
  }

  /** Writes what is left and closes the file. */
  close(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.apply()) this.identity.settle(this.#head);
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#log.close();
    this.#db.close();
  }
}

/** Each process once: it is written as it is now. */
function* latest(changes: readonly Change[]): Generator<Change> {
  const written = new Set<Process>();
  for (const change of changes) {
    if (change.write === 'process') {
      if (written.has(change.process)) continue;
      written.add(change.process);
    }
    yield change;
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
