import type { Client } from '../clients/client.ts';
import type { Reservation } from '../clients/quotas.ts';
import type { Deadlines } from '../deadlines/deadlines.ts';
import type { Problem } from '../errors/problem.ts';
import type { EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import type { Event } from '../model/event.ts';
import { Listeners } from '../model/listeners.ts';
import { Bookmarks } from './bookmarks.ts';
import { NotedSink } from './noted-sink.ts';
import { type EventPage, EventPages, type PageRequest } from './pages.ts';
import type { Follower, Sink, Subscriptions } from './sink.ts';
import { Subscriber, type SubscriberParts } from './subscriber.ts';

/** Why the daemon closes its connections: for good, or because it is replaced. */
export type Why = 'stopping' | 'restarting';
type ShutDown = (why: Why) => void;

/** Delivers events: live ones to followers, and past ones in pages. */
export class Feed implements EventSink, Subscriptions {
  readonly #journal: Journal;
  readonly #bufferLimit: number;
  /** By client; followers of every client's events under `null`. */
  readonly #byClient = new Map<string | null, Set<Follower>>();
  readonly #byHandle = new Map<string, Set<Follower>>();
  /** Each with the function that ends its subscription to the end of the daemon. */
  readonly #subscribers = new Map<Subscriber, () => void>();
  readonly #closing = new Listeners<[why: Why]>();
  readonly #pages: EventPages;
  readonly #bookmarks: Bookmarks;
  #closed: Why | null = null;
  readonly #counted = new Listeners();
  /** How many subscribers were cut off because they read too slowly. */
  cuts = 0;

  /** @param bufferLimit bytes that may wait for one reader */
  constructor(journal: Journal, bufferLimit: number, deadlines: Deadlines) {
    this.#journal = journal;
    this.#bufferLimit = bufferLimit;
    this.#pages = new EventPages(journal, this);
    this.#bookmarks = new Bookmarks(journal, deadlines);
  }

  /** Subscribes to changes of {@link size}. @returns a function that ends the subscription */
  onCount(listener: () => void): () => void {
    return this.#counted.on(listener);
  }

  /** How many sockets and streams are open. */
  get size(): number {
    return this.#closing.size;
  }

  /** Offers events to every follower. They have been written already. */
  push(events: readonly Event[]): void {
    for (const event of events) {
      for (const follower of this.#byClient.get(event.client) ?? []) follower.offer(event);
      for (const follower of this.#byClient.get(null) ?? []) follower.offer(event);
      for (const follower of this.#byHandle.get(event.handle) ?? []) follower.offer(event);
    }
    this.#bookmarks.lookSoon();
  }

  /**
   * Makes a subscriber; it begins with {@link Subscriber.start} and must be ended with {@link detach}.
   * @param shutDown ends its connection when the daemon stops or is replaced
   */
  attach(
    parts: Pick<SubscriberParts, 'client' | 'filter' | 'beginningOf'> & { sink: Sink },
    shutDown: ShutDown,
  ): Subscriber {
    const sink = new NotedSink(parts.sink, this.#bookmarks.lookSoon);
    const subscriber = new Subscriber({
      ...parts,
      sink,
      journal: this.#journal,
      subscriptions: this,
      bufferLimit: this.#bufferLimit,
      onCut: () => {
        this.cuts += 1;
      },
    });
    this.#subscribers.set(subscriber, this.onClose(shutDown));
    this.#bookmarks.add(subscriber, sink);
    return subscriber;
  }

  /**
   * Subscribes a connection to the end of the daemon. If that has begun, the listener is called at once.
   * @returns a function that ends the subscription
   */
  onClose(shutDown: ShutDown): () => void {
    if (this.#closed !== null) shutDown(this.#closed);
    const leave = this.#closing.on(shutDown);
    this.#counted.emit();
    return () => {
      leave();
      this.#counted.emit();
    };
  }

  detach(subscriber: Subscriber): void {
    subscriber.end();
    this.#bookmarks.remove(subscriber);
    this.#subscribers.get(subscriber)?.();
    this.#subscribers.delete(subscriber);
  }

  /**
   * Reserves the quota of a socket or stream before it exists.
   * @param handles how many it follows from its beginning
   * @returns to be disposed of when its connection or its answer has ended
   * @throws {Problem} EDQUOT
   */
  reserve(client: Client, handles: number): Reservation {
    client.requireRoom('subscriptions', handles);
    return client.reserve('sockets');
  }

  followAll(follower: Follower): void {
    add(this.#byClient, follower.scope, follower);
  }

  leaveAll(follower: Follower): void {
    remove(this.#byClient, follower.scope, follower);
  }

  follow(handle: string, follower: Follower): void {
    add(this.#byHandle, handle, follower);
  }

  leave(handle: string, follower: Follower): void {
    remove(this.#byHandle, handle, follower);
  }

  /** As {@link EventPages.page}. */
  page(request: PageRequest): Promise<EventPage | 'aborted'> {
    return this.#pages.page(request);
  }

  /** Ends every connection that has subscribed to this, and refuses every page that waits. */
  close(problem: Problem, why: Why): void {
    this.#closed = why;
    this.#pages.close(problem);
    this.#closing.emit(why);
  }
}

function add<K>(index: Map<K, Set<Follower>>, key: K, follower: Follower): void {
  const followers = index.get(key);
  if (followers === undefined) index.set(key, new Set([follower]));
  else followers.add(follower);
}

function remove<K>(index: Map<K, Set<Follower>>, key: K, follower: Follower): void {
  const followers = index.get(key);
  if (followers?.delete(follower) && followers.size === 0) index.delete(key);
}
