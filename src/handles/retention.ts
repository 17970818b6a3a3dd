import type { Journal } from '../journal/journal.ts';
import type { Handles } from './handles.ts';

/** How long things are kept, in milliseconds. */
export interface Keep {
  collected: number;
  uncollected: number;
  events: number;
}

/** How long an idempotency key is kept after its answer, in milliseconds, and at least as long as its handle. */
export const KEEP_KEYS_MS = 24 * 3_600_000;

/** The most handles that expire in one transaction. */
const BATCH = 256;

/** The bounds of the time between two checks, and how many checks the shortest retention gets. */
const SHORTEST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 60_000;
const CHECKS_PER_TIME = 60;

/**
 * Expires handles some time after they were collected, or ended uncollected, and removes old events. It checks when something is due, so
 * an idle daemon stays asleep.
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
    this.#timer = setTimeout(() => this.#again(this.#check()), delay).unref();
  }

  /** @returns when to check again, in milliseconds */
  #check(): number {
    const { collected, uncollected, events } = this.#keep;
    const shortest = Math.min(collected, uncollected, events);
    const pause = Math.min(Math.max(shortest / CHECKS_PER_TIME, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS);
    // While the journal cannot be written, nothing is removed.
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
    // A process that ends from now on is due after the shortest time at the earliest.
    return Math.max(pause, Math.min(due - now, shortest));
  }
}
