import type { StoredEvent } from '../model/event.ts';

/** A range of seqs, `after` exclusive and `to` inclusive. */
export interface Range {
  after: number;
  to: number;
}

/** The events that were sent on a socket for subscriptions that it does not have any more. No event may be sent twice. */
export class SentRanges {
  /** Of all of the client's events. */
  #all: Range | null = null;
  /** Of each handle, in ascending order and without overlaps. */
  readonly #byHandle = new Map<string, Range[]>();
  #size = 0;

  /** How many ranges of single handles it holds. */
  get size(): number {
    return this.#size;
  }

  addAll(range: Range): void {
    this.#all = range;
  }

  add(handle: string, range: Range): void {
    if (range.after >= range.to) return;
    const before = this.#byHandle.get(handle) ?? [];
    const merged: Range[] = [];
    for (const { after, to } of [...before, range].sort((one, other) => one.after - other.after)) {
      const last = merged.at(-1);
      if (last === undefined || after > last.to) merged.push({ after, to });
      else last.to = Math.max(last.to, to);
    }
    this.#byHandle.set(handle, merged);
    this.#size += merged.length - before.length;
  }

  includes({ seq, handle }: StoredEvent): boolean {
    const within = ({ after, to }: Range): boolean => seq > after && seq <= to;
    return (this.#all !== null && within(this.#all)) || (this.#byHandle.get(handle)?.some(within) ?? false);
  }

  clear(): void {
    this.#all = null;
    this.#byHandle.clear();
    this.#size = 0;
  }
}
