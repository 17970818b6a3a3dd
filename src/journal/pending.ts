import type { Change } from './change.ts';
import type { Line } from './log.ts';
import type { Statement } from './statement.ts';
import { statementsOf } from './statements.ts';

/** A change that the tables do not have yet, with the number of its log line and its moment. */
interface PendingChange {
  line: number;
  at: number;
  change: Change;
}

/** The changes that the tables do not have yet, in order. They are in the log, or with a fault in memory alone. */
export class Pending {
  readonly #boot: string;
  #changes: PendingChange[] = [];

  constructor(boot: string) {
    this.#boot = boot;
  }

  get size(): number {
    return this.#changes.length;
  }

  add(line: number, at: number, change: Change): void {
    this.#changes.push({ line, at, change });
  }

  /** Adds changes that must be applied before all others. */
  precede(line: number, at: number, changes: readonly Change[]): void {
    this.#changes = [...changes.map((change) => ({ line, at, change })), ...this.#changes];
  }

  clear(): void {
    this.#changes = [];
  }

  /** Returns the changes of one kind. */
  of<W extends Change['write']>(write: W): Extract<Change, { write: W }>[] {
    if (this.#changes.length === 0) return [];
    return this.#changes
      .map(({ change }) => change)
      .filter((change): change is Extract<Change, { write: W }> => change.write === write);
  }

  /** Returns the statements of all changes, by line of the log. */
  get lines(): (Line & { number: number })[] {
    const byLine = Map.groupBy(this.#changes, ({ line }) => line);
    return [...byLine].map(([number, changes]) => ({ number, statements: changes.flatMap((each) => this.#of(each)) }));
  }

  /** Returns each change with its statements. A process is written once, as it is now. */
  *latest(): Generator<{ change: Change; statements: Statement[] }> {
    const written = new Set<unknown>();
    for (const pending of this.#changes) {
      const { change } = pending;
      if (change.write === 'process') {
        if (written.has(change.process)) continue;
        written.add(change.process);
      }
      yield { change, statements: this.#of(pending) };
    }
  }

  #of({ change, at }: PendingChange): Statement[] {
    return statementsOf(change, { boot: this.#boot, at });
  }
}
