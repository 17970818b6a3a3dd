import type { Gap } from '../../schemas/events.ts';
import type { EventRows } from '../journal/event-rows.ts';
import type { Journal } from '../journal/journal.ts';
import type { EventFilter } from '../model/event-filter.ts';
import type { Range } from './sent-ranges.ts';

/** How many past events are read at a time. */
const PAGE = 256;

export interface ReplayFacts {
  /** `null` for all of the client's. */
  handles: readonly string[] | null;
  /** The cursor that it begins after. */
  after: number;
  /** Handles that were followed live before, each with the cursor that it has been followed from. */
  resumed?: ReadonlyMap<string, number>;
  /** The handles that `subscribed` names at its end; `null` if no such frame is due. */
  announced?: readonly string[] | null;
}

/** A page of past events. */
export interface ReplayPage extends EventRows {
  gap: Gap | null;
}

/** Past events that are still to be sent, of some handles or of all. Live ones follow when it is complete. */
export class Replay {
  readonly announced: readonly string[] | null;
  readonly #after: number;
  readonly #resumed: ReadonlyMap<string, number> | null;
  #handles: readonly string[] | null;
  #position: number;

  constructor({ handles, after, resumed, announced }: ReplayFacts) {
    this.#handles = handles;
    this.#after = after;
    this.#position = after;
    this.#resumed = resumed ?? null;
    this.announced = announced ?? null;
  }

  /** The handles that are left in it. */
  get handles(): readonly string[] {
    return this.#handles ?? [];
  }

  /** The cursor up to which it has been sent. */
  get position(): number {
    return this.#position;
  }

  /** What has been sent of it. */
  get sent(): Range {
    return { after: this.#after, to: this.#position };
  }

  /** Whether all of its handles have been unsubscribed. */
  get isEmpty(): boolean {
    return this.#handles?.length === 0;
  }

  /** Returns the cursor that a handle has been followed from. */
  startOf(handle: string): number {
    return this.#resumed?.get(handle) ?? this.#after;
  }

  /** Takes a handle out. @returns what has been sent of it; `null` if it is not in here */
  remove(handle: string): Range | null {
    if (this.#handles?.includes(handle) !== true) return null;
    this.#handles = this.#handles.filter((other) => other !== handle);
    return { after: this.startOf(handle), to: this.#position };
  }

  /** Marks everything up to a seq as sent. */
  advance(seq: number): void {
    this.#position = Math.max(this.#position, seq);
  }

  /** Reads what comes next. A gap is passed by that. */
  read(journal: Journal, client: string | null, filter: EventFilter): ReplayPage {
    const { events, reached } = journal.queries.events({
      ...filter,
      client,
      ...(this.#handles !== null && { handles: this.#handles }),
      since: this.#position,
      limit: PAGE,
    });
    // After the read, which may find the journal damaged: what that has lost is in the gap.
    const gap = journal.gapAfter(this.#position);
    if (gap !== null) this.#position = gap.to;
    return { gap, events, reached };
  }
}
