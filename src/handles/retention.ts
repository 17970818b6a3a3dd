import type { Journal } from '../journal/journal.ts';
import type { Handles } from './handles.ts';

/** How long things are kept, in milliseconds. */
export interface Keep {
  collected: number;
  uncollected: number;
  events: number;
}

/** How long an idempotency key is kept from its answer, and at least as long as its handle. */
export const KEEP_KEYS_MS = 24 * 3_600_000;

/** How many handles expire in one transaction. */
const BATCH = 256;

/** How often it is looked, at most, and beside the shortest time that is kept. */
const SHORTEST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 60_000;
const LOOKS_PER_TIME = 60;

/**
 * Lets go of what was kept long enough: handles after they were collected, or ended without that, and events. It looks when
 * something is due; a daemon with nothing to forget is left asleep.
 */
export class Retention {
  readonly #journal: Journal;
  readonly #handles: Handles;
  readonly #keep: Keep;
  #timer: NodeJS.Timeout | null = null;

  constructor(journal: Journal, handles: Handles, keep: Keep) {
    this.#journal = journal;
    this.#handles = handles;
    this.#keep = keep;
  }

  start(): void {
    this.#again(0);
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #again(delay: number): void {
    this.#timer = setTimeout(() => this.#again(this.#look()), delay).unref();
  }

  /** @returns when to look again, in milliseconds */
  #look(): number {
    const { collected, uncollected, events } = this.#keep;
    const shortest = Math.min(collected, uncollected, events);
    const pause = Math.min(Math.max(shortest / LOOKS_PER_TIME, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS);
    // What cannot be written down is not forgotten either.
    if (this.#journal.fault !== null) return pause;
    const now = this.#journal.now();
    const over = this.#journal.queries.expired(now - collected, now - uncollected, BATCH);
    if (over.length > 0) this.#handles.expire(over);
    const more = this.#journal.trim(now - events, now - collected, now - KEEP_KEYS_MS);
    if (over.length === BATCH || more) return 0;
    const oldest = this.#journal.queries.oldestKept();
    const due = Math.min(
      (oldest.collected ?? now) + collected,
      (oldest.ended ?? now) + uncollected,
      (oldest.event ?? now) + events,
      (oldest.key ?? now) + KEEP_KEYS_MS,
    );
    // Whatever ends from now on is due after the shortest time at the earliest.
    return Math.max(pause, Math.min(due - now, shortest));
  }
}
