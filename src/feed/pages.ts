import { setImmediate } from 'node:timers/promises';
import type { Gap } from '../../schemas/events.ts';
import type { Caller } from '../clients/caller.ts';
import type { Client } from '../clients/client.ts';
import type { Problem } from '../errors/problem.ts';
import { type EventQuery, PAGE_SIZE } from '../journal/event-rows.ts';
import type { Journal } from '../journal/journal.ts';
import { fits } from '../model/event-filter.ts';
import type { Follower, Subscriptions } from './sink.ts';

/** How long one page may search past events in one turn of the event loop, in milliseconds. */
const SLICE_MS = 10;

export interface EventPage {
  /** The frames, as JSON texts. */
  frames: string[];
  gap: Gap | null;
  /** The cursor for the next page: it passes over what the filter left out. */
  next: number;
}

export interface PageRequest extends Omit<EventQuery, 'since' | 'client'> {
  client: Client;
  /** The cursor to begin after; the oldest one if it is missing. */
  since: number | undefined;
  /** How long to wait for the first event, in milliseconds; not at all if it is missing. */
  timeoutMs: number | undefined;
  caller: Caller;
}

/** Past events in pages. A page may wait for its first event. */
export class EventPages {
  readonly #journal: Journal;
  readonly #subscriptions: Subscriptions;
  readonly #waiting = new Set<(problem: Problem) => void>();
  #closed: Problem | null = null;
  /** The end of the last slice that a page has asked for. */
  #slices: Promise<void> = Promise.resolve();

  constructor(journal: Journal, subscriptions: Subscriptions) {
    this.#journal = journal;
    this.#subscriptions = subscriptions;
  }

  /**
   * Returns a page of past events. With a timeout it waits for the first one.
   * @throws {Problem} EDQUOT; ESHUTDOWN when the daemon stops meanwhile
   */
  async page(request: PageRequest): Promise<EventPage | 'aborted'> {
    const { oldest, head } = this.#journal;
    const { since = oldest - 1, timeoutMs } = request;
    let page = await this.#read(request, Math.min(since, head));
    if (page !== 'aborted' && since > head) page.gap = { from: head + 1, to: since, reset: true };
    if (timeoutMs === undefined) return page;
    // What retention removes before `next` in the meantime is no gap, because nothing there fits.
    while (isEmpty(page) && page.next < this.#journal.head) page = await this.#read(request, page.next);
    if (!isEmpty(page)) return page;
    const reached = await this.#arrival(request, timeoutMs);
    return reached === 'aborted' ? 'aborted' : this.#read(request, reached);
  }

  /** Reads a page, in slices of the event loop's time if the filter leaves out most. The last slice runs up to the head. */
  async #read(request: PageRequest, since: number): Promise<EventPage | 'aborted'> {
    const { client, limit, caller } = request;
    const page: EventPage = { frames: [], gap: null, next: since };
    let size = 0;
    for (let until = 0; ; ) {
      const { events, reached } = this.#journal.queries.events({
        ...request,
        client: client.scope,
        since: page.next,
        limit: limit - page.frames.length,
      });
      // After the read, which may find the journal damaged: what that has lost is in the gap.
      const gap = this.#journal.gapAfter(page.next);
      // One within the page is left to the next page.
      if (gap !== null && (page.gap !== null || page.frames.length > 0)) return page;
      page.gap ??= gap;
      page.next = reached === null ? this.#journal.head : Math.max(reached, gap?.to ?? 0);
      for (const { frame } of events) {
        page.frames.push(frame);
        size += frame.length;
      }
      if (reached === null || page.frames.length === limit || size >= PAGE_SIZE) return page;
      if (performance.now() < until) continue;
      await this.#slice();
      if (caller.abortSignal.aborted) return 'aborted';
      if (this.#closed !== null) throw this.#closed;
      until = performance.now() + SLICE_MS;
    }
  }

  /** Waits for a turn of the event loop in which no other page searches. */
  #slice(): Promise<void> {
    this.#slices = this.#slices.then(() => setImmediate());
    return this.#slices;
  }

  /** Waits for the first event that fits. @returns the cursor before it, or the head when the time is over: nothing before that fits */
  #arrival(request: PageRequest, timeoutMs: number): Promise<number | 'aborted'> {
    const { client, handles, caller } = request;
    const { abortSignal } = caller;
    if (this.#closed !== null) return Promise.reject(this.#closed);
    const reservation = client.reserve('parkedWaits');
    const { promise, resolve, reject } = Promise.withResolvers<number | 'aborted'>();
    const follower: Follower = {
      scope: client.scope,
      offer: (event) => {
        if (fits(event, request)) resolve(event.seq - 1);
      },
    };
    const timer = setTimeout(() => resolve(this.#journal.head), timeoutMs);
    const onAbort = (): void => resolve('aborted');
    if (abortSignal.aborted) onAbort();
    abortSignal.addEventListener('abort', onAbort);
    this.#waiting.add(reject);
    if (handles === undefined) this.#subscriptions.followAll(follower);
    for (const handle of handles ?? []) this.#subscriptions.follow(handle, follower);
    return promise.finally(() => {
      reservation[Symbol.dispose]();
      clearTimeout(timer);
      abortSignal.removeEventListener('abort', onAbort);
      this.#waiting.delete(reject);
      this.#subscriptions.leaveAll(follower);
      for (const handle of handles ?? []) this.#subscriptions.leave(handle, follower);
    });
  }

  /** Refuses every page that waits, and every later wait. */
  close(problem: Problem): void {
    this.#closed = problem;
    for (const reject of this.#waiting) reject(problem);
  }
}

const isEmpty = (page: EventPage | 'aborted'): page is EventPage =>
  page !== 'aborted' && page.frames.length === 0 && page.gap === null;
