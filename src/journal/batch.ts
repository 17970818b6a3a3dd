import type { EventType } from '../../schemas/vocabulary.ts';
import { type Event, type EventFacts, encode, type When } from '../model/event.ts';
import type { Handle, Process } from '../model/process.ts';
import type { Change } from './change.ts';
import type { Journal } from './journal.ts';

/** Where events go once they are written. */
export interface EventSink {
  push(events: readonly Event[]): void;
}

/**
 * All that one wake or one request changes, on its one way: written, then pushed to those who subscribed, then (with `reap`) taken
 * from the kernel, which takes a while, then told to those who wait.
 */
export class Batch {
  readonly #changes: Change[] = [];
  readonly #events: Event[] = [];
  readonly #touched = new Set<Process>();
  readonly #journal: Journal;
  readonly #now: When;

  constructor(journal: Journal) {
    this.#journal = journal;
    this.#now = { shown: Date.now(), at: journal.now() };
  }

  get empty(): boolean {
    return this.#changes.length === 0 && this.#touched.size === 0;
  }

  write(change: Change): void {
    this.#changes.push(change);
  }

  /** An event of one handle. */
  event(type: EventType, handle: Handle, facts: EventFacts = {}): void {
    const event = encode(this.#journal.nextSeq(), type, handle, this.#now, facts);
    this.#changes.push({ write: 'event', event });
    this.#events.push(event);
  }

  /** A change of a process: written, an event of every handle on it, and those who wait on it look again. */
  change(type: EventType, process: Process, facts: EventFacts = {}): void {
    // Without a handle (its last one was closed under a parked wait) nobody could ever ask for what is written.
    if (!this.#touched.has(process) && process.handles.size > 0) this.#changes.push({ write: 'process', process });
    this.#touched.add(process);
    for (const handle of process.handles) this.event(type, handle, facts);
  }

  /**
   * @param reap what follows the write; it learns whether all is on disk
   */
  commit(sink: EventSink, reap?: (durable: boolean) => void): void {
    if (this.empty) return;
    const durable = this.#journal.commit(this.#changes);
    sink.push(this.#events);
    reap?.(durable);
    for (const process of this.#touched) process.changed();
  }
}
