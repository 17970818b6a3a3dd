import type { EventQuery } from '../../schemas/events.ts';
import type { Client } from '../clients/client.ts';
import type { Reservation } from '../clients/quotas.ts';
import type { Feed, Why } from '../feed/feed.ts';
import type { EventPage } from '../feed/pages.ts';
import type { Sink } from '../feed/sink.ts';
import type { Subscriber } from '../feed/subscriber.ts';
import type { Handles } from '../handles/handles.ts';
import { unknownHandle } from '../handles/refusals.ts';
import type { EventFilter } from '../model/event-filter.ts';
import type { Operation } from './operation.ts';

interface Parts {
  handles: Handles;
  feed: Feed;
}

type FilterQuery = Pick<EventQuery, 'type' | 'label'>;

const filterOf = ({ type, label }: FilterQuery): EventFilter => ({
  labels: label,
  ...(type !== undefined && { types: type }),
});

/** Operations on events: read in pages, or pushed to a subscriber. */
export class EventOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly page: Operation<EventQuery, Promise<EventPage | 'aborted'>> = {
    run: (call, query) => {
      const { since, handle, limit, timeoutMs } = query;
      return this.#parts.feed.page({
        ...filterOf(query),
        client: call.client,
        since,
        limit,
        timeoutMs,
        caller: call,
        ...(handle !== undefined && { handles: handle }),
      });
    },
  };

  /** Returns the ids of handles that a query or a frame names by id or by `@` and name. */
  idsOf(client: Client, refs: readonly string[]): string[] {
    return refs.map((ref) => this.#parts.handles.resolve(client, ref));
  }

  /** Requires that the client has had each handle that a query names. @throws {Problem} EBADF */
  requireKnown(client: Client, { handle = [] }: Pick<EventQuery, 'handle'>): void {
    for (const id of handle) if (this.#parts.handles.beginningOf(client, id) === null) throw unknownHandle(id);
  }

  /**
   * Reserves the quota of a subscriber before it exists.
   * @returns a reservation to dispose of when the connection has closed
   * @throws {Problem} EDQUOT
   */
  reserve(client: Client, { handle = [] }: Pick<EventQuery, 'handle'>): Reservation {
    return this.#parts.feed.reserve(client, handle.length);
  }

  /**
   * Attaches a subscriber, which begins with {@link Subscriber.start} and must be detached.
   * @param shutDown ends its connection when the daemon stops or is replaced
   */
  attach(client: Client, query: FilterQuery, sink: Sink, shutDown: (why: Why) => void): Subscriber {
    const beginningOf = (id: string): number | null => this.#parts.handles.beginningOf(client, id);
    return this.#parts.feed.attach({ client, filter: filterOf(query), sink, beginningOf }, shutDown);
  }

  detach(subscriber: Subscriber): void {
    this.#parts.feed.detach(subscriber);
  }
}
