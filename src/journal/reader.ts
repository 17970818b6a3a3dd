import type { SQLInputValue } from 'node:sqlite';
import type { Change } from './change.ts';
import type { Tables } from './tables.ts';
import type { Writer } from './writer.ts';

/** Reads rows and pending changes. Together they hold all that was committed, also while the disk is full. */
export class Reader {
  readonly #tables: Tables;
  readonly #writer: Writer;

  constructor(tables: Tables, writer: Writer) {
    this.#tables = tables;
    this.#writer = writer;
  }

  /** Returns rows, after pending changes were applied where that is possible; see {@link Tables.rows}. */
  all<T>(sql: string, values: readonly SQLInputValue[], isEnough?: (row: T) => boolean): T[] {
    this.#applyUnlessFaulty();
    const before = this.#tables.replacements;
    const rows = this.#tables.rows(sql, values, isEnough);
    if (this.#tables.replacements === before) return rows;
    // The tables are new: they get all that exists before they are read.
    this.#writer.apply();
    return this.#tables.rows(sql, values, isEnough);
  }

  get<T>(sql: string, values: readonly SQLInputValue[]): T | undefined {
    return this.all<T>(sql, values)[0];
  }

  /** Returns the changes of one kind that wait for the disk, in order. */
  pending<W extends Change['write']>(write: W): Extract<Change, { write: W }>[] {
    this.#applyUnlessFaulty();
    return this.#writer.pending.of(write);
  }

  /** With a fault, a timer tries to write: each read would only be slower. */
  #applyUnlessFaulty(): void {
    if (this.#writer.fault === null) this.#writer.apply();
  }
}
