import type { EventType } from '../../schemas/vocabulary.ts';
import type { Client } from '../clients/client.ts';
import type { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { Event } from '../model/event.ts';

/** How many events of the past are read at a time. */
const PAGE = 256;

/** A reader for whom more waits than may is cut off when it has taken nothing for so long. */
const BEHIND_MS = 1000;

/** How long replays of one reader may hold up everybody else in one turn of the event loop. */
const SLICE_MS = 10;

/** While so many replays wait, no more frames are read from the socket. */
const MOST_REPLAYS = 16;

/** How many ranges of seqs one socket remembers of handles that it does not follow any more. */
const MOST_REMEMBERED = 10_000;

/** Where a subscriber's frames go: a WebSocket, or an SSE stream. */
export interface Sink {
  /** Reads frames from the client, or leaves them to the network for now. */
  reading?(on: boolean): void;
  /** @param seq of an event's frame; of another one, the cursor from which nothing is lost after it */
  send(frame: string, seq?: number): void;
  /** Bytes that wait here because the reader does not read. */
  readonly buffered: number;
  /** Calls back when they have left this process. */
  flushed(callback: () => void): void;
  /** Ends it because of that. `since` is the lowest cursor that loses nothing. */
  cut(since: number): void;
}

/** Who is told of the handles, or of the client, that it follows. */
export interface Follower {
  /** Whose events, where it follows no handle by name: one client's, or with `null` everybody's. */
  readonly scope: string | null;
  offer(event: Event): void;
}

/** Where followers of live events are kept. */
export interface Subscriptions {
  followAll(follower: Follower): void;
  leaveAll(follower: Follower): void;
  follow(handle: string, follower: Follower): void;
  leave(handle: string, follower: Follower): void;
}

export interface SubscriberParts {
  client: Client;
  types: readonly EventType[] | undefined;
  sink: Sink;
  journal: Journal;
  subscriptions: Subscriptions;
  /** The cursor from before a handle's first event; `null` where the client never had it. */
  beginningOf(handle: string): number | null;
  /** Bytes that may wait in the sink. */
  bufferLimit: number;
  /** Told when it is cut off. */
  onCut(): void;
}

/** A range of seqs, `after` exclusive and `to` inclusive. */
interface Range {
  after: number;
  to: number;
}

/** The past that is still to be sent, of some handles or of all; its live events follow when it is done. */
interface Replay {
  /** `null`: all of the client's. */
  handles: string[] | null;
  after: number;
  position: number;
  /** Of handles that were followed live before, from which cursor on. */
  resumed?: ReadonlyMap<string, number>;
}

/**
 * One socket's or stream's view of the feed: what it follows, how far it has come, and that it gets each event once, in
 * order. The past is read from the journal at the reader's own pace. Where live events come faster than that, thousands at once, they
 * are the past too; only a reader that takes nothing is cut off.
 */
export class Subscriber implements Follower {
  readonly client: Client;
  readonly scope: string | null;
  readonly #parts: SubscriberParts;
  /** Once narrowed to named handles, it never goes back to all. */
  #all: Replay | 'live' | null = null;
  #allAfter = 0;
  /** What was sent of all handles before the narrowing. */
  #allSent: Range | null = null;
  /** Handles followed live, and from which cursor on. */
  readonly #live = new Map<string, number>();
  readonly #replays: Replay[] = [];
  /** What was sent of handles that are not followed any more: in order, without overlaps. */
  readonly #sent = new Map<string, Range[]>();
  #remembered = 0;
  /** How long was replayed in this turn of the event loop. */
  #spentMs = 0;
  #turn: NodeJS.Immediate | null = null;
  /** One place of the client's quota for each handle that it follows by name. */
  readonly #following: Reservation[] = [];
  #ended = false;
  #waiting = false;
  #behind: NodeJS.Timeout | null = null;

  constructor(parts: SubscriberParts) {
    this.client = parts.client;
    this.scope = parts.client.scope;
    this.#parts = parts;
  }

  /**
   * Says hello and begins: with the handles named, or with everything from `since`, or from now.
   */
  start(handles: readonly string[] | undefined, since: number | undefined): void {
    const { journal } = this.#parts;
    const { node, head } = journal;
    const oldest = Math.min(journal.oldest, head + 1);
    // A reader that loses its connection before the first event comes back with this.
    this.#frame({ type: 'hello', node, head, oldest }, since ?? this.#beginningOf(handles) ?? head);
    if (handles !== undefined) {
      this.subscribe(handles, since);
      return;
    }
    const after = this.#checked(since ?? journal.head);
    this.#allAfter = after;
    this.#all = { handles: null, after, position: after };
    this.#replays.push(this.#all);
    this.#pump();
  }

  /** The cursor from before the first event of several handles; `null` where the client has none of them, or none is named. */
  #beginningOf(handles: readonly string[] | undefined): number | null {
    const beginnings = handles?.map((handle) => this.#parts.beginningOf(handle)).filter((seq) => seq !== null) ?? [];
    return beginnings.length === 0 ? null : Math.min(...beginnings);
  }

  /** Follows handles, after a replay of what they have behind them: from `since`, or from each one's beginning. */
  subscribe(handles: readonly string[], since: number | undefined): void {
    if (this.#ended) return;
    if (this.#remembered >= MOST_REMEMBERED) {
      this.error('EDQUOT', 'This socket has followed too many handles one after another: subscribe on another one.');
      return;
    }
    this.#narrow();
    const named = [...new Set(handles)];
    const beginnings = named.map((handle) => this.#parts.beginningOf(handle));
    const known = named.filter((_, index) => beginnings[index] !== null);
    const there = new Set(known);
    for (const handle of named) if (!there.has(handle)) this.error('EBADF', `You have no handle ${handle}.`);
    if (known.length === 0) return;
    const from = since ?? Math.min(...beginnings.filter((seq) => seq !== null));
    const after = this.#checked(from);
    const fresh = known.filter((handle) => !this.#follows(handle));
    if (!this.#orTold(() => this.#take(fresh.length))) return;
    // One replay for the whole frame, so that its events come in one order, and one answer at its end.
    this.#replays.push({ handles: fresh, after, position: after });
    this.#announce.set(this.#replays.at(-1)!, known);
    this.#pump();
  }

  readonly #announce = new WeakMap<Replay, string[]>();

  unsubscribe(handles: readonly string[]): void {
    for (const handle of handles) {
      const after = this.#live.get(handle);
      if (after !== undefined) {
        this.#live.delete(handle);
        this.#following.pop()?.[Symbol.dispose]();
        this.#parts.subscriptions.leave(handle, this);
        this.#remember(handle, { after, to: this.#parts.journal.head });
      }
      for (const replay of this.#replays) {
        if (replay.handles?.includes(handle) !== true) continue;
        replay.handles = replay.handles.filter((other) => other !== handle);
        this.#following.pop()?.[Symbol.dispose]();
        this.#remember(handle, { after: replay.resumed?.get(handle) ?? replay.after, to: replay.position });
      }
    }
  }

  /** A live event of something that is followed. */
  offer(event: Event): void {
    if (this.#ended || !this.#wants(event)) return;
    if (this.#parts.sink.buffered > this.#parts.bufferLimit) {
      this.#fallBehind(event.seq - 1);
      return;
    }
    this.#parts.sink.send(event.frame, event.seq);
    // Nothing follows these two.
    if (event.type === 'closed' || event.type === 'expired') this.unsubscribe([event.handle]);
  }

  /** Goes on from the journal once the reader has taken what waits for it, and is cut off if it does not. */
  #fallBehind(position: number): void {
    const { subscriptions } = this.#parts;
    if (this.#all === 'live') {
      subscriptions.leaveAll(this);
      this.#all = { handles: null, after: this.#allAfter, position };
      this.#replays.push(this.#all);
    }
    if (this.#live.size > 0) {
      const resumed = new Map(this.#live);
      for (const handle of resumed.keys()) subscriptions.leave(handle, this);
      this.#live.clear();
      this.#replays.push({ handles: [...resumed.keys()], after: position, position, resumed });
    }
    this.#await();
  }

  /** Goes on once the reader has taken what waits for it. */
  #await(): void {
    const { sink, journal, bufferLimit } = this.#parts;
    this.#waiting = true;
    if (sink.buffered > bufferLimit && this.#behind === null) {
      let { buffered } = sink;
      this.#behind = setInterval(() => {
        if (sink.buffered >= buffered) this.#cut(journal.head);
        else ({ buffered } = sink);
      }, BEHIND_MS);
    }
    sink.flushed(() => {
      this.#keepUp();
      this.#waiting = false;
      this.#pump();
    });
  }

  #keepUp(): void {
    if (this.#behind !== null) clearInterval(this.#behind);
    this.#behind = null;
  }

  /** @returns false where the client has sent too many frames, and has been told */
  admit(): boolean {
    return this.#orTold(() => this.client.requests.take(this.client.quotas.requestsPerSecond));
  }

  #orTold(ask: () => void): boolean {
    try {
      ask();
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.error(error.errno, error.message);
      return false;
    }
  }

  /** An error frame; the stream goes on. */
  error(errno: string, detail: string): void {
    this.#frame({ type: 'error', errno, detail });
  }

  /** The reader is gone. */
  end(): void {
    this.#ended = true;
    this.#keepUp();
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#sent.clear();
    this.#replays.length = 0;
    this.#parts.subscriptions.leaveAll(this);
    for (const handle of this.#live.keys()) this.#parts.subscriptions.leave(handle, this);
    this.#live.clear();
    for (const place of this.#following.splice(0)) place[Symbol.dispose]();
  }

  /** @throws {Problem} EDQUOT where the client may not follow so many more */
  #take(more: number): void {
    this.client.requireRoom('subscriptions', more);
    for (let count = 0; count < more; count += 1) this.#following.push(this.client.reserve('subscriptions'));
  }

  /** @param position the cursor from which nothing is lost after this frame */
  #frame(frame: object, position?: number): void {
    if (this.#ended) return;
    if (this.#parts.sink.buffered > this.#parts.bufferLimit) this.#cut(this.#parts.journal.head);
    else this.#parts.sink.send(JSON.stringify(frame), position);
  }

  /** @param liveSince how far the live events have come */
  #cut(liveSince: number): void {
    const since = Math.min(liveSince, ...this.#replays.map((replay) => replay.position));
    this.end();
    this.#parts.onCut();
    this.#parts.sink.cut(since);
  }

  #wants({ type }: Event): boolean {
    return this.#parts.types === undefined || this.#parts.types.includes(type);
  }

  #follows(handle: string): boolean {
    return this.#live.has(handle) || this.#replays.some((replay) => replay.handles?.includes(handle));
  }

  /** A cursor from beyond the head is from another life of the node: said, and then set right. */
  #checked(since: number): number {
    const { head } = this.#parts.journal;
    if (since <= head) return since;
    this.#frame({ type: 'gap', from: head + 1, to: since, reset: true }, head);
    return head;
  }

  #narrow(): void {
    if (this.#all === null) return;
    const to = this.#all === 'live' ? this.#parts.journal.head : this.#all.position;
    this.#allSent = { after: this.#allAfter, to };
    if (this.#all !== 'live') this.#replays.splice(this.#replays.indexOf(this.#all), 1);
    this.#parts.subscriptions.leaveAll(this);
    this.#all = null;
  }

  #remember(handle: string, range: Range): void {
    if (range.after >= range.to) return;
    const before = this.#sent.get(handle) ?? [];
    const merged: Range[] = [];
    for (const { after, to } of [...before, range].sort((one, other) => one.after - other.after)) {
      const last = merged.at(-1);
      if (last === undefined || after > last.to) merged.push({ after, to });
      else last.to = Math.max(last.to, to);
    }
    this.#sent.set(handle, merged);
    this.#remembered += merged.length - before.length;
  }

  #wasSent({ seq, handle }: Event): boolean {
    const within = ({ after, to }: Range): boolean => seq > after && seq <= to;
    return (this.#allSent !== null && within(this.#allSent)) || (this.#sent.get(handle)?.some(within) ?? false);
  }

  /** Sends of the past what the reader takes, a slice in each turn; goes on when that has left. */
  #pump(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = null;
      this.#spentMs = 0;
      if (this.#replays.length > 0) this.#pump();
    });
    while (!this.#ended && !this.#waiting && this.#spentMs < SLICE_MS) {
      const [replay] = this.#replays;
      if (replay === undefined) break;
      const began = performance.now();
      if (this.#sendPage(replay)) {
        this.#replays.shift();
        this.#goLive(replay);
      }
      this.#spentMs += performance.now() - began;
    }
    if (!this.#ended) this.#parts.sink.reading?.(this.#replays.length < MOST_REPLAYS);
  }

  /** @returns whether it has reached the present */
  #sendPage(replay: Replay): boolean {
    const { journal, types, sink, bufferLimit } = this.#parts;
    if (replay.handles?.length === 0) return true;
    const gap = journal.gapAfter(replay.position);
    if (gap !== null) {
      this.#frame({ type: 'gap', ...gap }, gap.to);
      replay.position = gap.to;
    }
    const { events: page, more } = journal.queries.events({
      client: this.scope,
      ...(replay.handles !== null && { handles: replay.handles }),
      ...(types !== undefined && { types }),
      since: replay.position,
      limit: PAGE,
    });
    for (const event of page) {
      if (!this.#wasSent(event)) sink.send(event.frame, event.seq);
      replay.position = event.seq;
      if (sink.buffered <= bufferLimit) continue;
      this.#await();
      return false;
    }
    if (more) {
      this.#await();
      return false;
    }
    replay.position = journal.head;
    return true;
  }

  #goLive(replay: Replay): void {
    if (replay === this.#all) {
      this.#all = 'live';
      this.#parts.subscriptions.followAll(this);
      return;
    }
    for (const handle of replay.handles ?? []) {
      this.#live.set(handle, replay.resumed?.get(handle) ?? replay.after);
      this.#parts.subscriptions.follow(handle, this);
    }
    if (replay.resumed !== undefined) return;
    this.#frame({ type: 'subscribed', handles: this.#announce.get(replay) ?? [] });
  }
}
