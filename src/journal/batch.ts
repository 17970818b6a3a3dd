import type { EventType } from '../../schemas/vocabulary.ts';
import { type Event, type EventFacts, encode, type When } from '../model/event.ts';
import type { Handle, Process } from '../model/process.ts';
import type { Change } from './change.ts';
import type { Journal } from './journal.ts';

/** Receives events once they are written. */
export interface EventSink {
  push(events: readonly Event[]): void;
}

/**
 * The changes of one wake or one request. A commit does four things in this order: it writes them, pushes their events to subscribers,
 * reaps in the kernel, which takes a while, and calls back the parked waits.
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

  /** Adds an event of one handle. */
  event(type: EventType, handle: Handle, facts: EventFacts = {}): void {
    const event = encode(this.#journal.nextSeq(), type, handle, this.#now, facts);
    this.#changes.push({ write: 'event', event });
    this.#events.push(event);
  }

  /** Adds a change of a process and an event of every handle on it. Parked waits on it check again after the commit. */
  change(type: EventType, process: Process, facts: EventFacts = {}): void {
    // Without a handle (the last one was closed under a parked wait) no request can read what is written.
    if (!this.#touched.has(process) && process.handles.size > 0) this.#changes.push({ write: 'process', process });
    this.#touched.add(process);
    for (const handle of process.handles) this.event(type, handle, facts);
  }

  /** Adds `settled` for the open handles on a child of which nothing is left. */
  settle(process: Process, handles: Iterable<Handle>): void {
    process.remains = null;
    this.#touched.add(process);
    let isHeld = false;
    for (const handle of handles) {
      isHeld = true;
      this.event('settled', handle, process.ending!);
    }
    if (isHeld) this.#changes.push({ write: 'settled', process });
  }

  /**
   * Commits the batch.
   * @param reap runs after the write, with whether all changes are on disk
   */
  commit(sink: EventSink, reap?: (durable: boolean) => void): void {
    if (this.empty) return;
    const durable = this.#journal.commit(this.#changes);
    sink.push(this.#events);
    reap?.(durable);
    for (const process of this.#touched) process.changed();
  }
}
