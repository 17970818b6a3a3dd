import type { Client } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { Event } from '../model/event.ts';
import { type EventFilter, fits } from '../model/event-filter.ts';
import type { Bookmarked } from './bookmarks.ts';
import { FlowControl } from './flow-control.ts';
import { FollowedHandles } from './followed-handles.ts';
import type { Mode } from './mode.ts';
import { Replay } from './replay.ts';
import { SentRanges } from './sent-ranges.ts';
import type { Follower, Sink, Subscriptions } from './sink.ts';

/** While so many replays wait, no more frames are read from the socket. */
const MOST_REPLAYS = 16;

/** How many ranges of seqs one socket remembers of handles that it does not follow any more. */
const MOST_REMEMBERED = 10_000;

export interface SubscriberParts {
  client: Client;
  filter: EventFilter;
  sink: Sink;
  journal: Journal;
  subscriptions: Subscriptions;
  /** Returns the cursor from before a handle's first event; `null` if the client never had it. */
  beginningOf(handle: string): number | null;
  /** Bytes that may wait in the sink. */
  bufferLimit: number;
  /** Called when a slow reader is cut off. */
  onCut(): void;
}

/**
 * The events of one socket or stream: which ones it follows, how far it has come, and that it gets each once and in order. Past events
 * are read from the journal at the reader's own pace. If live ones come faster than that, they are read from the journal too. Only a
 * reader that takes nothing at all is cut off.
 */
export class Subscriber implements Follower, Bookmarked {
  readonly client: Client;
  readonly scope: string | null;
  readonly #parts: SubscriberParts;
  readonly #flow: FlowControl;
  #mode: Mode = { name: 'narrowed' };
  readonly #handles: FollowedHandles;
  /** In the order in which they are sent. */
  readonly #replays: Replay[] = [];
  readonly #sent = new SentRanges();

  constructor(parts: SubscriberParts) {
    this.client = parts.client;
    this.scope = parts.client.scope;
    this.#parts = parts;
    this.#handles = new FollowedHandles(parts.client, parts.subscriptions, this);
    this.#flow = new FlowControl({
      sink: parts.sink,
      limit: parts.bufferLimit,
      onReady: () => this.#pump(),
      onStalled: () => this.#cut(parts.journal.head),
    });
  }

  /**
   * Sends hello, and begins to follow.
   * @param handles those to follow; all of the client's events if it is missing
   * @param since the cursor to begin after; without it all events begin at the head, and a handle's at its first one
   */
  start(handles: readonly string[] | undefined, since: number | undefined): void {
    const { journal } = this.#parts;
    const { node, head } = journal;
    const oldest = Math.min(journal.oldest, head + 1);
    // A reader that loses its connection before the first event comes back with this cursor.
    this.send({ type: 'hello', node, head, oldest }, since ?? this.#beginningOf(handles) ?? head);
    if (handles !== undefined) {
      this.subscribe(handles, since);
      return;
    }
    const replay = new Replay({ handles: null, after: this.#checked(since ?? journal.head) });
    this.#mode = { name: 'replaying', replay };
    this.#replays.push(replay);
    this.#pump();
  }

  /** Returns the cursor from before the first event of several handles; `null` if the client has none of them, or none is named. */
  #beginningOf(handles: readonly string[] | undefined): number | null {
    const beginnings = handles?.map((handle) => this.#parts.beginningOf(handle)).filter((seq) => seq !== null) ?? [];
    return beginnings.length === 0 ? null : Math.min(...beginnings);
  }

  /** Follows handles after a replay of their past: from `since`, or from each one's beginning. */
  subscribe(handles: readonly string[], since: number | undefined): void {
    if (this.#isEnded) return;
    if (this.#sent.size >= MOST_REMEMBERED) {
      this.error('EDQUOT', 'This socket has followed too many handles one after another: subscribe on another one.');
      return;
    }
    const known = new Map<string, number>();
    const unknown: string[] = [];
    for (const handle of new Set(handles)) {
      const beginning = this.#parts.beginningOf(handle);
      if (beginning === null) unknown.push(handle);
      else known.set(handle, beginning);
    }
    if (known.size > 0) this.#replay(known, since);
    // After that, since a reader that is cut off by one of these must not lose what it has subscribed to.
    for (const handle of unknown) this.error('EBADF', `You have no handle ${handle}: list yours with GET /v1/handles.`);
    this.#pump();
  }

  /** Queues one replay for all handles of a frame, so that their events come in one order, with one answer at its end. */
  #replay(beginnings: ReadonlyMap<string, number>, since: number | undefined): void {
    const after = this.#checked(since ?? Math.min(...beginnings.values()));
    const announced = [...beginnings.keys()];
    const fresh = announced.filter((handle) => this.#startOf(handle) === undefined);
    // One that is followed from a later cursor is followed anew. What was sent of it is not sent again.
    const renewed = announced.filter((handle) => (this.#startOf(handle) ?? 0) > after);
    if (this.#isEnded || !this.#attempt(() => this.#handles.reserve(fresh.length))) return;
    this.#narrow();
    for (const handle of renewed) this.#leave(handle);
    this.#replays.push(new Replay({ handles: [...fresh, ...renewed], after, announced }));
  }

  unsubscribe(handles: readonly string[]): void {
    for (const handle of handles) if (this.#leave(handle)) this.#handles.release();
  }

  /** Stops following a handle, and keeps its quota. @returns whether it was followed */
  #leave(handle: string): boolean {
    const after = this.#handles.leave(handle);
    const removed = this.#replays.map((replay) => replay.remove(handle)).find((sent) => sent !== null);
    const sent = after === undefined ? removed : { after, to: this.#parts.journal.head };
    if (sent !== undefined) this.#sent.add(handle, sent);
    return sent !== undefined;
  }

  /** Takes a live event that is followed. */
  offer(event: Event): void {
    const { filter, sink } = this.#parts;
    if (this.#isEnded) return;
    if (fits(event, filter)) {
      if (this.#flow.isFull) {
        this.#fallBehind(event.seq - 1);
        return;
      }
      sink.send(event.frame, event.seq);
    }
    // No event of the handle follows these two.
    if (event.type === 'closed' || event.type === 'expired') this.unsubscribe([event.handle]);
  }

  /** Follows from the journal what was followed live, until the reader has taken what waits for it. */
  #fallBehind(position: number): void {
    const { subscriptions } = this.#parts;
    if (this.#mode.name === 'live') {
      subscriptions.leaveAll(this);
      const replay = new Replay({ handles: null, after: this.#mode.after });
      replay.advance(position);
      this.#mode = { name: 'replaying', replay };
      this.#replays.push(replay);
    }
    const resumed = this.#handles.leaveAll();
    if (resumed.size > 0) this.#replays.push(new Replay({ handles: [...resumed.keys()], after: position, resumed }));
    this.#flow.wait();
  }

  /** Admits a frame of the client. @returns false if it has sent too many, which an error frame says */
  admit(): boolean {
    return this.#attempt(() => this.client.requests.take(this.client.quotas.requestsPerSecond));
  }

  /** @returns false if it throws a problem, which is sent as an error frame */
  #attempt(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.error(error.errno, error.message);
      return false;
    }
  }

  /** Sends an error frame. The stream goes on. */
  error(errno: string, detail: string): void {
    this.send({ type: 'error', errno, detail });
  }

  /** Ends every subscription: the connection has closed. */
  end(): void {
    this.#mode = { name: 'ended' };
    this.#flow.stop();
    this.#sent.clear();
    this.#replays.length = 0;
    this.#parts.subscriptions.leaveAll(this);
    this.#handles.end();
  }

  get #isEnded(): boolean {
    return this.#mode.name === 'ended';
  }

  /** Whether all that it follows was sent, up to the head. */
  get isCaughtUp(): boolean {
    return !this.#isEnded && this.#replays.length === 0;
  }

  /** Sends a frame that is no event. @param position the cursor from which nothing is lost after it */
  send(frame: object, position?: number): void {
    if (this.#isEnded) return;
    if (this.#flow.isFull) this.#cut(this.#parts.journal.head);
    else this.#parts.sink.send(JSON.stringify(frame), position);
  }

  /** @param liveSince the cursor up to which live events have been sent */
  #cut(liveSince: number): void {
    const since = Math.min(liveSince, ...this.#replays.map((replay) => (replay.isEmpty ? liveSince : replay.position)));
    this.end();
    this.#parts.onCut();
    this.#parts.sink.cut(since);
  }

  /** Returns the cursor that a handle is followed from; `undefined` if it is not followed by its name. */
  #startOf(handle: string): number | undefined {
    const replay = this.#replays.find(({ handles }) => handles.includes(handle));
    return replay?.startOf(handle) ?? this.#handles.startOf(handle);
  }

  /** A cursor beyond the head is from an earlier life of the node. It is reported as a gap, and replaced by the head. */
  #checked(since: number): number {
    const { head } = this.#parts.journal;
    if (since <= head) return since;
    this.send({ type: 'gap', from: head + 1, to: since, reset: true }, head);
    return head;
  }

  #narrow(): void {
    const mode = this.#mode;
    switch (mode.name) {
      case 'narrowed':
      case 'ended':
        return;
      case 'live':
        this.#sent.addAll({ after: mode.after, to: this.#parts.journal.head });
        this.#parts.subscriptions.leaveAll(this);
        break;
      case 'replaying':
        this.#sent.addAll(mode.replay.sent);
        this.#replays.splice(this.#replays.indexOf(mode.replay), 1);
    }
    this.#mode = { name: 'narrowed' };
  }

  /** Sends past events until the reader is full or the slice of this turn is used up. The flow control calls it again. */
  #pump(): void {
    while (this.#flow.isReady) {
      const [replay] = this.#replays;
      if (replay === undefined) break;
      const began = performance.now();
      if (this.#sendPage(replay)) {
        this.#replays.shift();
        this.#goLive(replay);
      }
      this.#flow.spend(performance.now() - began);
    }
    if (!this.#isEnded) this.#parts.sink.reading?.(this.#replays.length < MOST_REPLAYS);
  }

  /** @returns whether the replay is complete */
  #sendPage(replay: Replay): boolean {
    const { journal, filter, sink } = this.#parts;
    if (replay.isEmpty) return true;
    const { gap, events, reached } = replay.read(journal, this.scope, filter);
    if (gap !== null) this.send({ type: 'gap', ...gap }, gap.to);
    if (this.#isEnded) return false; // cut off by that
    for (const event of events) {
      if (!this.#sent.includes(event)) sink.send(event.frame, event.seq);
      replay.advance(event.seq);
      if (!this.#flow.isFull) continue;
      this.#flow.wait();
      return false;
    }
    replay.advance(reached ?? journal.head);
    // A page without events has only passed over what the filter left out.
    if (reached !== null && events.length > 0) this.#flow.wait();
    return reached === null;
  }

  #goLive(replay: Replay): void {
    if (this.#mode.name === 'replaying' && this.#mode.replay === replay) {
      this.#mode = { name: 'live', after: replay.sent.after };
      this.#parts.subscriptions.followAll(this);
      return;
    }
    for (const handle of replay.handles) this.#handles.goLive(handle, replay.startOf(handle));
    if (replay.announced !== null) this.send({ type: 'subscribed', handles: replay.announced });
  }
}
