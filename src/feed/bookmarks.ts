import type { Deadline, Deadlines } from '../deadlines/deadlines.ts';
import type { Journal } from '../journal/journal.ts';
import type { NotedSink } from './noted-sink.ts';

/** A stream whose cursor is behind the head gets a bookmark when nothing was sent on it for this long, in milliseconds. */
const QUIET_MS = 10_000;

/** How long after an event all streams are looked at, and the shortest time between two looks, in milliseconds. */
const LOOK_MS = 1000;

/** The most bookmarks that are sent in one turn of the event loop. */
const BATCH = 256;

/** A stream of events, as far as bookmarks need it. */
export interface Bookmarked {
  /** Whether all that it follows was sent, up to the head. */
  readonly isCaughtUp: boolean;
}

/**
 * Tells quiet streams how far they have come, so that they can resume from there: a `bookmark` promises that no event up to its seq
 * follows. There is one deadline for all streams, and none while all of them are at the head.
 */
export class Bookmarks {
  readonly #journal: Journal;
  readonly #deadlines: Deadlines;
  readonly #streams = new Map<Bookmarked, NotedSink>();
  #next: Deadline | null = null;
  /** Whether the next look follows within {@link LOOK_MS}. */
  #isSoon = false;

  constructor(journal: Journal, deadlines: Deadlines) {
    this.#journal = journal;
    this.#deadlines = deadlines;
  }

  add(stream: Bookmarked, sink: NotedSink): void {
    this.#streams.set(stream, sink);
    this.lookSoon();
  }

  remove(stream: Bookmarked): void {
    this.#streams.delete(stream);
  }

  /** Schedules a look at all streams: the head has moved, or something was sent. */
  readonly lookSoon = (): void => {
    if (this.#isSoon || this.#streams.size === 0) return;
    this.#isSoon = true;
    this.#lookAt(this.#deadlines.now + LOOK_MS);
  };

  #lookAt(at: number): void {
    if (this.#next !== null && this.#next.at <= at) return;
    if (this.#next !== null) this.#deadlines.cancel(this.#next);
    this.#next = this.#deadlines.add(at, () => this.#look());
  }

  /** Sends the bookmarks that are due, and finds out when to look again. */
  #look(): void {
    this.#next = null;
    this.#isSoon = false;
    const { now } = this.#deadlines;
    const { head } = this.#journal;
    let next = Number.POSITIVE_INFINITY;
    let sent = 0;
    for (const [stream, sink] of this.#streams) {
      sink.quietSince ??= now;
      if (sink.cursor >= head) continue;
      const due = sink.quietSince + QUIET_MS;
      if (due > now) {
        next = Math.min(next, due);
      } else if (!stream.isCaughtUp || sink.buffered > 0) {
        next = Math.min(next, now + QUIET_MS);
      } else if (sent === BATCH) {
        this.#lookAt(now);
        return;
      } else {
        sink.send(JSON.stringify({ type: 'bookmark', seq: head }), head);
        sent += 1;
      }
    }
    if (next < Number.POSITIVE_INFINITY) this.#lookAt(Math.max(next, now + LOOK_MS));
  }
}
