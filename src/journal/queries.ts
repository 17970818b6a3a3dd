import type { SQLInputValue } from 'node:sqlite';
import type { LabelFilter } from '../model/event-filter.ts';
import type { EndedBy, Handle, OpenDescription, Process } from '../model/process.ts';
import type { StoredKey, TerminationFacts } from './change.ts';
import { type EventQuery, type EventRows, eventsOf } from './event-rows.ts';
import type { Reader } from './reader.ts';
import type { Recent } from './recent.ts';
import { HANDLE_COLUMNS, type HandleRow, handleOf, PROCESSES, type ProcessRow, processOf } from './rows.ts';
import { terminationsOf } from './termination-rows.ts';
import { type StoredWatch, watchesOf } from './watch-rows.ts';

export interface HandleQuery {
  /** `null` for all clients. */
  client: string | null;
  /** Only handles of ended processes, or only those of others. */
  ended?: boolean;
  /** All of them must fit. */
  name?: string;
  labels: readonly LabelFilter[];
  /** Only handles with a smaller seq. */
  before: number;
  limit: number;
}

/** What is left of a closed or expired handle while its last event is stored. */
export interface Tombstone {
  client: string;
  seq: number;
  endedBy: EndedBy;
}

/** A handle as it was written, with the boot to which its pid and inode belong. */
export interface StoredHandle {
  handle: Handle;
  boot: string;
}

/** All that can be read from the journal. */
export class Queries {
  readonly #reader: Reader;
  readonly #recent: Recent;
  readonly #bootId: string;
  /** Ended processes that will still change. The handles of later queries refer to these objects. */
  readonly shared = new Map<number, Process>();

  constructor(reader: Reader, recent: Recent, bootId: string) {
    this.#reader = reader;
    this.#recent = recent;
    this.#bootId = bootId;
  }

  /** As {@link eventsOf}. */
  events(query: EventQuery): EventRows {
    return eventsOf(this.#reader, query);
  }

  /** Returns an open handle, `null` where none has this id. */
  handle(id: string): Handle | null {
    const recent = this.#recent.handle(id);
    if (recent !== undefined) return recent;
    if (this.#reader.pending('tombstone').some(({ handle }) => handle.id === id)) return null;
    const pending = this.#reader.pending('handle').findLast(({ handle }) => handle.id === id);
    if (pending !== undefined) return pending.handle;
    const row = this.#reader.get<HandleRow>(`${HANDLE_COLUMNS} WHERE h.id = ?`, [id]);
    return row === undefined ? null : handleOf(row, this.#sharedOf(row.process));
  }

  /** Returns the object of an ended process that others must use as well. */
  #sharedOf(id: number): Map<number, Process> {
    // On a full disk, the tables do not have the latest change.
    const latest = this.#reader.pending('settled').find(({ process }) => process.id === id);
    const process = this.shared.get(id) ?? latest?.process;
    return new Map(process === undefined ? [] : [[id, process]]);
  }

  /** Returns the id of the open handle of a client that has a name, `null` where none has it. */
  named(client: string, name: string): string | null {
    const pending = this.#reader
      .pending('handle')
      .findLast(({ handle }) => handle.client === client && handle.name === name);
    const sql = 'SELECT id FROM handles WHERE client = ? AND name = ?';
    const rows = this.#reader.all<{ id: string }>(sql, [client, name]);
    // On a full disk, the tables have older names.
    const ids = pending === undefined ? rows.map(({ id }) => id) : [pending.handle.id];
    return ids.find((id) => this.handle(id)?.name === name) ?? null;
  }

  /** Returns the tombstone of a handle, `null` where there is none. */
  tombstone(id: string): Tombstone | null {
    const pending = this.#reader.pending('tombstone').find(({ handle }) => handle.id === id);
    if (pending !== undefined) {
      const { client, seq } = pending.handle;
      return { client, seq, endedBy: pending.endedBy };
    }
    type Row = { client: string; seq: number; how: EndedBy };
    const row = this.#reader.get<Row>('SELECT client, seq, how FROM gone WHERE id = ?', [id]);
    return row === undefined ? null : { client: row.client, seq: row.seq, endedBy: row.how };
  }

  /** Whether a process has an open handle, by the journal's number of the process. */
  holds(process: number): boolean {
    return this.#reader.get('SELECT 1 FROM handles WHERE process = ? LIMIT 1', [process]) !== undefined;
  }

  /** Returns the open handles on a process. */
  handlesOf(process: Process): Handle[] {
    const sql = `${HANDLE_COLUMNS} WHERE h.process = ? ORDER BY h.seq`;
    const rows = this.#reader.all<HandleRow>(sql, [process.id]);
    const handles = new Map(rows.map((row) => [row.id, handleOf(row)]));
    // On a full disk, the tables still have handles that were closed since.
    for (const { handle } of this.#reader.pending('handle'))
      if (handle.process.id === process.id) handles.set(handle.id, handle);
    for (const { handle } of this.#reader.pending('tombstone')) handles.delete(handle.id);
    return [...handles.values()];
  }

  /** Returns the ids of handles, newest first. */
  list({ client, ended, labels, name, before, limit }: HandleQuery): { id: string; seq: number }[] {
    // A handle that was written before its process was started has a negative seq.
    const where = ['h.seq < ?', 'h.seq >= 0'];
    const values: SQLInputValue[] = [before];
    if (client !== null) {
      where.push('h.client = ?');
      values.push(client);
    }
    if (ended !== undefined) where.push(`p.state ${ended ? '=' : '<>'} 'exited'`);
    if (name !== undefined) {
      where.push('h.name = ?');
      values.push(name);
    }
    for (const [key, value] of labels) {
      where.push('h.seq IN (SELECT handle FROM labels WHERE client = coalesce(?, client) AND key = ? AND value = ?)');
      values.push(client, key, value);
    }
    const sql = `SELECT h.id, h.seq FROM handles h JOIN processes p ON p.id = h.process
      WHERE ${where.join(' AND ')} ORDER BY h.seq DESC LIMIT ?`;
    return this.#reader.all(sql, [...values, limit]);
  }

  /** Whether a client has collected the status of a process. */
  isCollected(process: Process, client: string): boolean {
    const collectors = this.#recent.collectorsOf(process);
    if (collectors !== undefined) return collectors.has(client);
    const sql = 'SELECT 1 FROM collected WHERE process = ? AND client = ?';
    return (
      this.#reader.get(sql, [process.id, client]) !== undefined ||
      this.#reader.pending('collected').some((change) => change.process.id === process.id && change.client === client)
    );
  }

  /** Returns what is stored of the request of a client with this idempotency key. */
  key(client: string, key: string): StoredKey | null {
    const pending = this.#reader
      .pending('key')
      .findLast((change) => change.key.client === client && change.key.key === key);
    if (pending !== undefined) return pending.key;
    const columns = 'client, key, fingerprint, handle, answer';
    return this.#reader.get(`SELECT ${columns} FROM keys WHERE client = ? AND key = ?`, [client, key]) ?? null;
  }

  /** Returns how much one client and all clients use for idempotency keys: one unit for each key and each whole KiB of an answer. */
  keyUnits(client: string): { own: number; all: number } {
    const sql =
      'SELECT coalesce(sum(units) FILTER (WHERE client = ?), 0) own, coalesce(sum(units), 0) "all" FROM key_use';
    return this.#reader.get(sql, [client])!;
  }

  /** Returns every open handle on a process that lives, or that its foreign parent has not reaped. */
  unended(): StoredHandle[] {
    return this.#handles(`WHERE h.process IN (SELECT id FROM processes WHERE ended_at IS NULL
      UNION ALL SELECT id FROM processes WHERE ending ->> 'reaped' = 0)`);
  }

  /** Returns every open handle on an ended child of which something may be left. */
  unsettled(): StoredHandle[] {
    return this.#handles(
      `WHERE h.process IN (SELECT id FROM processes WHERE remains IS NOT NULL AND ending IS NOT NULL AND relation = 'child')`,
    );
  }

  /** Returns every open handle whose captured output has not reached its end. */
  capturing(): Handle[] {
    return this.#handles('WHERE h.output > 0 AND h.output < 4').map(({ handle }) => handle);
  }

  /** Returns the open handles on a description that has an input. */
  withInput(description: number): StoredHandle[] {
    return this.#handles('WHERE h.description = ? AND h.input IS NOT NULL', [description]);
  }

  /** Returns every watch, with its sightings of this boot. */
  watches(): StoredWatch[] {
    return watchesOf((sql, values) => this.#reader.all(sql, values), this.#bootId);
  }

  /** Returns every termination that is pending in this boot. */
  terminations(): TerminationFacts[] {
    return terminationsOf((sql, values) => this.#reader.all(sql, values), this.#bootId);
  }

  /** Returns every process with a lifetime whose end was not written, with the boot to which its pid belongs. */
  limited(): { process: Process; boot: string }[] {
    const sql = `${PROCESSES} WHERE p.lifetime IS NOT NULL AND p.ending IS NULL`;
    return this.#reader.all<ProcessRow>(sql, []).map((row) => ({ process: processOf(row), boot: row.boot }));
  }

  /** Returns the client of each description with captured output. */
  outputs(): Map<number, string> {
    const sql = 'SELECT description, client FROM handles WHERE output > 0 ORDER BY seq DESC';
    const rows = this.#reader.all<{ description: number; client: string }>(sql, []);
    return new Map(rows.map(({ description, client }) => [description, client])); // the last one set is of the oldest handle
  }

  /** @param where selects few rows. The `+` lets SQLite sort these, rather than search all rows in the order of their seqs */
  #handles(where: string, values: number[] = []): StoredHandle[] {
    const rows = this.#reader.all<HandleRow>(`${HANDLE_COLUMNS} ${where} ORDER BY +h.seq`, values);
    const processes = new Map<number, Process>();
    const descriptions = new Map<number, OpenDescription>();
    return rows.map((row) => ({ handle: handleOf(row, processes, descriptions), boot: row.boot }));
  }

  /**
   * Returns handles to expire: those collected before one moment, and those whose process ended before another and that were not
   * collected. Both moments are on the journal's clock.
   */
  expired(collectedBefore: number, endedBefore: number, limit: number): Handle[] {
    const collected = this.#reader.all<HandleRow>(
      `${HANDLE_COLUMNS} JOIN collected c ON c.process = h.process AND c.client = h.client WHERE c.at < ? LIMIT ?`,
      [collectedBefore, limit],
    );
    const uncollected = this.#reader.all<HandleRow>(
      `${HANDLE_COLUMNS} LEFT JOIN collected c ON c.process = h.process AND c.client = h.client
       WHERE p.ended_at < ? AND c.at IS NULL LIMIT ?`,
      [endedBefore, limit],
    );
    return [...collected, ...uncollected].slice(0, limit).map((row) => handleOf(row));
  }

  /** Returns the moment of the oldest record of each kind on the journal's clock, `null` where there is none. */
  oldestKept(): { collected: number | null; ended: number | null; event: number | null; key: number | null } {
    const first = (sql: string): number | null => this.#reader.get<{ at: number | null }>(sql, [])?.at ?? null;
    return {
      collected: first('SELECT min(at) at FROM collected'),
      ended: first('SELECT min(ended_at) at FROM processes WHERE ended_at IS NOT NULL'),
      event: first('SELECT at FROM events ORDER BY seq LIMIT 1'),
      key: first('SELECT min(at) at FROM keys'),
    };
  }
}
