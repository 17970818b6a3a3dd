import type { SQLInputValue } from 'node:sqlite';
import { Listeners } from '../model/listeners.ts';
import { Database, kindOf, setAsideIn } from './database.ts';
import type { Notices } from './notices.ts';
import type { Statement } from './statement.ts';

/**
 * The tables of the journal. Where SQLite finds the file damaged, the file is set aside under another name, and the same work is done
 * again on empty tables.
 */
export class Tables {
  /** Emits after a damaged file was replaced by empty tables. */
  readonly replaced = new Listeners();
  readonly #db: Database;
  readonly #notices: Notices;
  #replacements = 0;

  /**
   * @param directory the state directory, locked
   * @throws {Error} if the file is of a later version, or cannot be opened
   */
  constructor(directory: string, notices: Notices) {
    this.#notices = notices;
    this.#db = this.#open(directory);
  }

  #open(directory: string): Database {
    try {
      return new Database(directory);
    } catch (error) {
      if (kindOf(error) !== 'damage') throw error;
      this.#notices.report({ what: 'damaged', reason: (error as Error).message, setAside: setAsideIn(directory) });
      return new Database(directory);
    }
  }

  get path(): string {
    return this.#db.path;
  }

  /** The version of the tables, 0 before they are created. */
  get version(): number {
    return this.#db.version;
  }

  /** How many times a damaged file was replaced. */
  get replacements(): number {
    return this.#replacements;
  }

  /** Brings the tables to the current version. */
  migrate(): void {
    this.#db.migrate();
  }

  /** Sets the file aside and begins an empty one. @returns the new name of the old file */
  setAside(): string {
    return this.#db.setAside();
  }

  /** Checks on disk that the file was not overwritten or truncated: SQLite's cache would hide that. */
  check(): void {
    this.#guarded(() => this.#db.requireHeader());
  }

  /** Does the work in one transaction. */
  transaction(work: () => void): void {
    this.#guarded(() => this.#db.transaction(work));
  }

  run(sql: string, values: Statement[1] = []): number {
    return Number(this.#db.statement(sql).run(...values).changes);
  }

  /** Runs statements in order. */
  runAll(statements: readonly Statement[]): void {
    for (const [sql, values] of statements) this.run(sql, values);
  }

  /**
   * Returns rows.
   * @param isEnough is called with each row in turn; the first row for which it returns true is the last one
   */
  rows<T>(sql: string, values: readonly SQLInputValue[] = [], isEnough?: (row: T) => boolean): T[] {
    const read = (): T[] => {
      const statement = this.#db.statement(sql);
      if (isEnough === undefined) return statement.all(...values) as unknown as T[];
      const rows: T[] = [];
      for (const row of statement.iterate(...values) as unknown as Iterable<T>) {
        rows.push(row);
        if (isEnough(row)) break;
      }
      return rows;
    };
    // Within a transaction, all of it must be done again.
    return this.#db.isTransaction ? read() : this.#guarded(read);
  }

  /** Returns the column `n` of the first row, 0 where it is null or missing. */
  number(sql: string): number {
    return Number(this.rows<{ n: number | null }>(sql)[0]?.n ?? 0);
  }

  /** Returns a value that the journal stores about itself. */
  meta(key: string): SQLInputValue | undefined {
    return this.rows<{ value: SQLInputValue }>('SELECT value FROM meta WHERE key = ?', [key])[0]?.value;
  }

  setMeta(key: string, value: string | number): void {
    this.run('INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value', [key, value]);
  }

  /** Removes all events. Readers then get a gap. */
  forgetEvents(): void {
    for (const table of ['events', 'gone', 'holes']) this.run(`DELETE FROM ${table}`);
  }

  close(): void {
    this.#db.close();
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (kindOf(error) !== 'damage') throw error;
      const setAside = this.#db.setAside();
      this.#replacements += 1;
      this.#notices.report({ what: 'damaged', reason: (error as Error).message, setAside });
      this.replaced.emit();
      return work();
    }
  }
}
