import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import type { Event, EventType } from '../feed/event.ts';
import { Handle, type Labels } from '../handles/handle.ts';
import { Description } from '../processes/description.ts';
import { type Ending, Process, type ProcessState, type Relation } from '../processes/process.ts';
import { SCHEMA, VERSION } from './schema.ts';

/** One thing to write down. What is named is written as it is when the write succeeds. */
export type Change =
  | { write: 'process'; process: Process }
  | { write: 'description'; description: Description }
  | { write: 'handle'; handle: Handle }
  | { write: 'collected'; process: Process; client: string }
  | { write: 'event'; event: Event };

export interface EventQuery {
  client: string;
  /** Only of these; all of the client's where it is missing. */
  handles?: readonly string[];
  types?: readonly EventType[];
  /** Exclusive. */
  since: number;
  limit: number;
}

export interface HandleQuery {
  client: string;
  /** Only ended ones, or only live ones. */
  ended?: boolean;
  labels: readonly (readonly [key: string, value: string])[];
  /** Only with a smaller seq. */
  before: number;
  limit: number;
}

interface HandleRow {
  seq: number;
  id: string;
  client: string;
  description: number;
  labels: string;
  created_at: number;
  gone: Handle['gone'];
  nonblocking: number;
  process: number;
  pid: number;
  inode: string | null;
  boot: string;
  started_at: number;
  argv: string;
  relation: Relation;
  state: ProcessState;
  ending: string | null;
}

// Errors of the disk, not of ours: SQLITE_NOMEM, READONLY, IOERR, FULL, CANTOPEN (sqlite.org/rescode.html).
const diskErrors = new Set([7, 8, 10, 13, 14]);

const HANDLE_COLUMNS = `
  SELECT h.*, d.nonblocking, d.process, p.pid, p.inode, p.boot, p.started_at, p.argv, p.relation, p.state, p.ending
  FROM handles h JOIN descriptions d ON d.id = h.description JOIN processes p ON p.id = d.process`;

/**
 * The record of handles, endings and events, in one SQLite file. Every change is one {@link commit}; what cannot be written
 * (a full disk) is kept in memory, served from there, and written once the disk is back.
 *
 * WAL with synchronous=NORMAL: nothing is lost when the daemon dies, only a power cut can take the last moments, and after
 * one every process is gone too.
 */
export class Journal {
  /** This journal's name: with another one, cursors mean nothing. */
  readonly node: string;
  readonly bootId: string;
  /** Told when the backlog has been written. */
  onRecovered: () => void = () => {};
  /** Why nothing can be written now, `null` while all is well. */
  fault: Error | null = null;

  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  #backlog: Change[] = [];
  #retry: NodeJS.Timeout | null = null;
  #head: number;
  #oldest: number;
  #lastProcess: number;
  #lastDescription: number;
  #eventCount: number;
  readonly #keepEvents: number;

  /**
   * @param directory exists, is ours alone, and is locked
   * @param keepEvents how many events are kept; older ones make a gap
   * @throws {Error} where the file is no journal of this version
   */
  constructor(directory: string, bootId: string, keepEvents: number) {
    this.bootId = bootId;
    this.#keepEvents = keepEvents;
    const file = join(directory, 'journal.sqlite');
    // Made first, so that it is private wherever it lies; SQLite gives its -wal and -shm the same mode.
    closeSync(openSync(file, 'a', 0o600));
    this.#db = new DatabaseSync(file);
    this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 0;');
    this.#migrate();
    this.node = this.#meta('node', () => `n_${randomBytes(8).toString('hex')}`);
    const number = (sql: string): number => Number(this.#statement(sql).get()?.n ?? 0);
    // `head` is also kept apart from the events, which retention removes.
    this.#head = Math.max(number('SELECT max(seq) n FROM events'), Number(this.#meta('head', () => '0')));
    this.#oldest = number('SELECT min(seq) n FROM events') || this.#head + 1;
    this.#lastProcess = number('SELECT max(id) n FROM processes');
    this.#lastDescription = number('SELECT max(id) n FROM descriptions');
    this.#eventCount = number('SELECT count(*) n FROM events');
  }

  #migrate(): void {
    const version = Number(this.#db.prepare('PRAGMA user_version').get()?.user_version);
    if (version === VERSION) return;
    if (version !== 0)
      throw new Error(
        `the journal in the state directory is of version ${version}, this waitd reads version ${VERSION}`,
      );
    this.#db.exec(`BEGIN; ${SCHEMA} PRAGMA user_version = ${VERSION}; COMMIT;`);
  }

  #meta(key: string, initial: () => string): string {
    this.#statement('INSERT OR IGNORE INTO meta VALUES (?, ?)').run(key, initial());
    return String(this.#statement('SELECT value FROM meta WHERE key = ?').get(key)!.value);
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /** The seq of the newest event, 0 before the first. */
  get head(): number {
    return this.#head;
  }

  /** The seq of the oldest event that is still there; the next one's where none is. */
  get oldest(): number {
    return this.#oldest;
  }

  /** The next event's seq: it only grows and is never used twice. */
  nextSeq(): number {
    this.#head += 1;
    return this.#head;
  }

  nextProcess(): number {
    this.#lastProcess += 1;
    return this.#lastProcess;
  }

  nextDescription(): number {
    this.#lastDescription += 1;
    return this.#lastDescription;
  }

  /** False while something waits for the disk. */
  get durable(): boolean {
    return this.#backlog.length === 0;
  }

  /**
   * Writes changes in one transaction. Never fails for the disk's sake: look at {@link durable} where it matters.
   * @returns whether they are on disk
   */
  commit(changes: readonly Change[]): boolean {
    this.#backlog.push(...changes);
    return this.#flush();
  }

  #flush(): boolean {
    const recovering = this.fault !== null;
    const counted = { events: this.#eventCount, oldest: this.#oldest };
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      for (const change of this.#backlog) this.#write(change);
      this.#trim();
      this.#db.exec('COMMIT');
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      this.#eventCount = counted.events;
      this.#oldest = counted.oldest;
      if (!isDiskError(error)) throw error;
      this.fault = error;
      this.#retry ??= setTimeout(() => {
        this.#retry = null;
        this.#flush();
      }, 250);
      return false;
    }
    this.#backlog = [];
    this.fault = null;
    if (recovering) this.onRecovered();
    return true;
  }

  #write(change: Change): void {
    switch (change.write) {
      case 'process': {
        const { id, pid, inode, startedAt, argv, relation, state, ending } = change.process;
        this.#statement(
          `INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (id) DO UPDATE SET relation = excluded.relation, state = excluded.state, ending = excluded.ending`,
        ).run(
          id,
          this.bootId,
          pid,
          inode,
          startedAt,
          JSON.stringify(argv),
          relation,
          state,
          ending && JSON.stringify(ending),
        );
        break;
      }
      case 'description': {
        const { id, process, nonblocking } = change.description;
        this.#statement(
          'INSERT INTO descriptions VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET nonblocking = excluded.nonblocking',
        ).run(id, process.id, Number(nonblocking));
        break;
      }
      case 'handle':
        this.#writeHandle(change.handle);
        break;
      case 'collected':
        this.#statement('INSERT OR IGNORE INTO collected VALUES (?, ?)').run(change.process.id, change.client);
        break;
      case 'event': {
        const { seq, client, handle, type, at, frame } = change.event;
        this.#statement('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)').run(seq, client, handle, type, at, frame);
        this.#eventCount += 1;
        break;
      }
    }
  }

  #writeHandle(handle: Handle): void {
    const labels = Object.entries(handle.labels);
    this.#statement(
      `INSERT INTO handles VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (seq) DO UPDATE SET labels = excluded.labels, gone = excluded.gone`,
    ).run(
      handle.seq,
      handle.id,
      handle.client,
      handle.description.id,
      JSON.stringify(handle.labels),
      handle.createdAt,
      handle.gone,
    );
    this.#statement('DELETE FROM labels WHERE handle = ?').run(handle.seq);
    for (const [key, value] of handle.gone === null ? labels : [])
      this.#statement('INSERT INTO labels VALUES (?, ?, ?, ?)').run(handle.client, key, value, handle.seq);
  }

  /** Removes the oldest events beyond what is kept, a thousand at a time so that it costs next to nothing each. */
  #trim(): void {
    if (this.#eventCount < this.#keepEvents + 1000) return;
    const from = this.#statement('SELECT seq FROM events ORDER BY seq LIMIT 1 OFFSET 1000').get()!.seq as number;
    this.#statement('DELETE FROM events WHERE seq < ?').run(from);
    this.#statement("UPDATE meta SET value = ? WHERE key = 'head'").run(String(this.#head));
    this.#eventCount -= 1000;
    this.#oldest = from;
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
    else {
      where.push('client = ?');
      values.push(client);
    }
    if (types !== undefined) oneOf('type', types);
    const sql = `SELECT seq, client, handle, type, at, frame FROM events WHERE ${where.join(' AND ')} ORDER BY seq LIMIT ?`;
    const stored = this.#statement(sql).all(...values, limit) as unknown as Event[];
    const waiting = this.#waitingEvents().filter(
      (event) =>
        event.seq > since &&
        (handles === undefined ? event.client === client : handles.includes(event.handle)) &&
        (types === undefined || types.includes(event.type)),
    );
    return waiting.length === 0 ? stored : [...stored, ...waiting].slice(0, limit);
  }

  #waitingEvents(): Event[] {
    return this.#backlog.flatMap((change) => (change.write === 'event' ? [change.event] : []));
  }

  /** A handle of a process that has ended, gone ones too; `null` for an id that never was. */
  handle(id: string): Handle | null {
    const row = this.#statement(`${HANDLE_COLUMNS} WHERE h.id = ?`).get(id) as HandleRow | undefined;
    return row === undefined ? null : handleOf(row);
  }

  /** The ids of a client's handles, newest first. */
  list({ client, ended, labels, before, limit }: HandleQuery): { id: string; seq: number }[] {
    const where = ['h.client = ?', 'h.gone IS NULL', 'h.seq < ?'];
    const values: SQLInputValue[] = [client, before];
    if (ended !== undefined) where.push(`p.state ${ended ? '=' : '<>'} 'exited'`);
    for (const [key, value] of labels) {
      where.push('h.seq IN (SELECT handle FROM labels WHERE client = ? AND key = ? AND value = ?)');
      values.push(client, key, value);
    }
    const sql = `SELECT h.id, h.seq FROM handles h
      JOIN descriptions d ON d.id = h.description JOIN processes p ON p.id = d.process
      WHERE ${where.join(' AND ')} ORDER BY h.seq DESC LIMIT ?`;
    return this.#statement(sql).all(...values, limit) as unknown as { id: string; seq: number }[];
  }

  /** Whether a client has collected the status of a process. */
  isCollected(process: Process, client: string): boolean {
    return (
      this.#statement('SELECT 1 FROM collected WHERE process = ? AND client = ?').get(process.id, client) !==
        undefined ||
      this.#backlog.some(
        (change) => change.write === 'collected' && change.process.id === process.id && change.client === client,
      )
    );
  }

  /** Every handle on a process whose end was never seen, with the boot that its pid and inode belong to. */
  unended(): { handle: Handle; boot: string }[] {
    const rows = this.#statement(
      `${HANDLE_COLUMNS} WHERE p.ending IS NULL OR NOT p.ending ->> 'reaped' ORDER BY h.seq`,
    ).all() as unknown as HandleRow[];
    const known = new Map<number, Process>();
    const shared = new Map<number, Description>();
    return rows.map((row) => ({ handle: handleOf(row, known, shared), boot: row.boot }));
  }

  /** Writes what is left and closes the file. */
  close(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (!this.durable) this.#flush();
    this.#db.close();
  }
}

/** Builds the objects of a row; those that several rows share are made once where maps are given. */
function handleOf(
  row: HandleRow,
  processes: Map<number, Process> = new Map(),
  descriptions: Map<number, Description> = new Map(),
): Handle {
  let process = processes.get(row.process);
  if (process === undefined) {
    const { pid, inode, relation } = row;
    const argv = JSON.parse(row.argv) as string[];
    process = new Process({ id: row.process, pid, inode, startedAt: row.started_at, argv, relation });
    process.state = row.state;
    if (row.ending !== null) process.end(JSON.parse(row.ending) as Ending);
    processes.set(row.process, process);
  }
  let description = descriptions.get(row.description);
  if (description === undefined) {
    description = new Description(row.description, process, null, row.nonblocking === 1);
    descriptions.set(row.description, description);
  }
  const { id, client, seq } = row;
  const handle = new Handle({
    id,
    client,
    description,
    labels: JSON.parse(row.labels) as Labels,
    createdAt: row.created_at,
    seq,
  });
  handle.gone = row.gone;
  return handle;
}

function isDiskError(error: unknown): error is Error {
  // The low byte is the primary code, the rest says more.
  return error instanceof Error && 'errcode' in error && diskErrors.has(Number(error.errcode) & 0xff);
}
