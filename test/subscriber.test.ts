import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import t from 'tap';
import type { Client } from '../src/clients/client.ts';
import { Deadlines } from '../src/deadlines/deadlines.ts';
import { Feed } from '../src/feed/feed.ts';
import type { Sink } from '../src/feed/sink.ts';
import type { Subscriber } from '../src/feed/subscriber.ts';
import type { EventQuery, EventRows } from '../src/journal/event-rows.ts';
import type { Journal } from '../src/journal/journal.ts';
import type { Event } from '../src/model/event.ts';
import { type EventFilter, fits } from '../src/model/event-filter.ts';

const HANDLES = ['a', 'b', 'c'] as const;
const UNKNOWN = 'x';
const CLIENT = 'uid:1';
const BUFFER = 60;
const QUIET_MS = 10_000;

/** What distinguishes events for a filter. */
type Kind = Pick<Event, 'type' | 'labels'>;

/** A journal in memory. */
class Log {
  readonly node = 'n_test';
  readonly queries = this;
  readonly events_: Event[] = [];
  /** The largest number of events in a page, and of those that one read filters. */
  readonly #page: number;

  constructor(page: number) {
    this.#page = page;
  }

  get head(): number {
    return this.events_.length;
  }

  get oldest(): number {
    return 1;
  }

  gapAfter(): null {
    return null;
  }

  events({ client, handles, since, limit, ...filter }: EventQuery): EventRows {
    const found = this.events_.filter(
      (event) =>
        event.seq > since &&
        (client === null || event.client === client) &&
        (handles === undefined || handles.includes(event.handle)),
    );
    const most = Math.min(limit, this.#page);
    const read = found.slice(0, most);
    const events = read.filter((event) => fits(event, filter));
    return { events, reached: found.length >= most ? read.at(-1)!.seq : null };
  }

  add(handle: string, { type, labels }: Kind, client = CLIENT): Event {
    const seq = this.head + 1;
    const frame = JSON.stringify({ type: 'event', seq });
    const event: Event = { seq, type, handle, client, labels, at: 0, frame };
    this.events_.push(event);
    return event;
  }
}

/** A reader that takes buffered frames only when the test says so. */
class Reader implements Sink {
  readonly seqs: number[] = [];
  onSubscribed: (handles: string[]) => void = () => {};
  onBookmark: (seq: number) => void = () => {};
  /** The cursor from which it would resume. */
  cursor = 0;
  sentAt = 0;
  buffered = 0;
  isSlow = false;
  cutAt: number | null = null;
  readonly #flushing: (() => void)[] = [];

  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  send(text: string, seq?: number): void {
    const frame = JSON.parse(text);
    if (frame.type === 'bookmark') this.onBookmark(frame.seq);
    if (this.isSlow) this.buffered += text.length;
    this.cursor = seq ?? this.cursor;
    this.sentAt = this.#now();
    if (frame.type === 'event') this.seqs.push(frame.seq);
    if (frame.type === 'subscribed') this.onSubscribed(frame.handles);
  }

  flushed(callback: () => void): void {
    this.#flushing.push(callback);
  }

  cut(since: number): void {
    this.cutAt = since;
  }

  /** Takes all buffered frames. */
  read(): boolean {
    this.buffered = 0;
    const flushed = this.#flushing.splice(0);
    for (const callback of flushed) callback();
    return flushed.length > 0;
  }
}

interface SceneFacts {
  page: number;
  /** What happened before the subscriber. */
  past: Kind[];
  handles: string[] | undefined;
  since: number | undefined;
  filter: EventFilter;
}

interface Range {
  after: number;
  to: number;
}

/** A handle that a subscription names. */
interface Awaited {
  range: Range;
  /** The cursor up to which its events come before the answer. */
  before: number;
}

/** The model of a socket: for each handle, the ranges of cursors in which it is or was followed. */
class Model {
  /** The ranges of all handles, while the socket has not been narrowed. */
  all: Range | null = null;
  readonly ranges = new Map<string, Range[]>();
  readonly #filter: EventFilter;

  constructor(filter: EventFilter) {
    this.#filter = filter;
    for (const handle of HANDLES) this.ranges.set(handle, []);
  }

  isFollowed(handle: string): boolean {
    return this.ranges.get(handle)!.at(-1)?.to === Number.POSITIVE_INFINITY;
  }

  /** Whether an event may have been sent. */
  mayHave(event: Event): boolean {
    const { handle, seq } = event;
    if (!fits(event, this.#filter)) return false;
    return [this.all, ...this.ranges.get(handle)!].some((range) => range && seq > range.after && seq <= range.to);
  }

  /** Whether an event must have been sent once no work is pending. */
  mustHave(event: Event): boolean {
    const { handle, seq } = event;
    if (!fits(event, this.#filter)) return false;
    const open = [this.all, this.ranges.get(handle)!.at(-1)].filter((range) => range?.to === Number.POSITIVE_INFINITY);
    return open.some((range) => seq > range!.after);
  }
}

type Command =
  | ({ do: 'event'; handle: string } & Kind)
  | { do: 'subscribe'; handles: string[]; back: number | null }
  | { do: 'unsubscribe'; handles: string[] }
  | { do: 'err' }
  | { do: 'slow down' }
  | { do: 'read' }
  | { do: 'wait' }
  | { do: 'pass'; seconds: number };

const handle = fc.constantFrom(...HANDLES);
const type = fc.constantFrom('stopped' as const, 'continued' as const);
const label = fc.constantFrom('1', '2');
const labels = fc.record({ a: label, b: label });
const filter: fc.Arbitrary<EventFilter> = fc.record(
  {
    types: fc.uniqueArray(type, { minLength: 1 }),
    labels: fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), label), { maxLength: 2 }),
  },
  { requiredKeys: [] },
);
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('event' as const), handle, type, labels }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('subscribe' as const),
      handles: fc.array(fc.oneof({ weight: 9, arbitrary: handle }, { weight: 1, arbitrary: fc.constant(UNKNOWN) }), {
        minLength: 1,
        maxLength: 3,
      }),
      back: fc.option(fc.nat(20), { nil: null }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unsubscribe' as const), handles: fc.array(handle) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('err' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('slow down' as const) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('read' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), seconds: fc.constantFrom(1, 9, 10, 12) }) },
);

/** One socket with its model, and the invariants. */
class Scene {
  readonly log: Log;
  readonly reader = new Reader(() => this.#now);
  readonly deadlines = new Deadlines({ set: () => {} }, () => this.#now);
  readonly feed: Feed;
  readonly subscriber: Subscriber;
  readonly model: Model;
  /** The seq of the latest bookmark, and how many events and subscriptions of each handle preceded it. */
  bookmark: { seq: number; sent: number; begun: ReadonlyMap<string, number> } | null = null;
  bookmarks = 0;
  /** How many handles count against the quota. */
  reserved = 0;
  /** Where the latest subscription of each handle begins among the sent frames. */
  readonly #begun = new Map<string, number>();
  /** The handles of each subscription that has not been confirmed yet. */
  readonly #awaited: Map<string, Awaited>[] = [];
  /** How often each handle was subscribed to anew. */
  readonly #subscriptions = new Map<string, number>();
  #now = 0;

  constructor({ page, past, handles, since, filter }: SceneFacts) {
    this.log = new Log(page);
    this.model = new Model(filter);
    for (const [at, kind] of past.entries()) this.log.add(HANDLES[at % HANDLES.length]!, kind);
    this.feed = new Feed(this.log as unknown as Journal, BUFFER, this.deadlines);
    const client = {
      scope: CLIENT,
      quotas: {},
      requests: { take: () => {} },
      requireRoom: () => {},
      reserve: () => {
        this.reserved += 1;
        return {
          [Symbol.dispose]: () => {
            this.reserved -= 1;
          },
        };
      },
    } as unknown as Client;
    const beginningOf = (id: string): number | null => (id === UNKNOWN ? null : 0);
    const parts = { client, filter, sink: this.reader, beginningOf };
    this.subscriber = this.feed.attach(parts, () => {});
    // These frames have the order of the subscriptions. Each follows its whole replay, and the events that occurred
    // during it; for a handle that was followed already, those from before the subscription.
    this.reader.onSubscribed = (named) => {
      const ranges = this.#awaited.shift()!;
      if (named.join() !== [...ranges.keys()].join()) throw new Error(`subscribed names ${named}`);
      for (const [each, { range, before }] of ranges)
        if (this.model.ranges.get(each)!.at(-1) === range)
          this.#requireAll(({ handle, seq }) => handle === each && seq <= before, 'before subscribed');
    };
    this.reader.onBookmark = (seq) => this.#checkBookmark(seq);
    if (handles === undefined) this.model.all = { after: since ?? past.length, to: Number.POSITIVE_INFINITY };
    else this.#follow(handles, since ?? null);
    this.subscriber.start(handles, since);
  }

  #follow(handles: readonly string[], since: number | null): void {
    const awaited = new Map<string, Awaited>();
    for (const each of new Set(handles)) {
      if (each === UNKNOWN) continue;
      const ranges = this.model.ranges.get(each)!;
      const isFollowed = this.model.isFollowed(each) && ranges.at(-1)!.after <= (since ?? 0);
      if (!isFollowed) {
        if (this.model.isFollowed(each)) ranges.at(-1)!.to = this.log.head;
        ranges.push({ after: since ?? 0, to: Number.POSITIVE_INFINITY });
        this.#begun.set(each, this.reader.seqs.length);
        this.#subscriptions.set(each, (this.#subscriptions.get(each) ?? 0) + 1);
      }
      awaited.set(each, { range: ranges.at(-1)!, before: isFollowed ? this.log.head : Number.POSITIVE_INFINITY });
    }
    if (awaited.size > 0) this.#awaited.push(awaited);
  }

  async run(step: Command): Promise<void> {
    const { log, reader, subscriber, model, feed } = this;
    switch (step.do) {
      case 'event': {
        feed.push([log.add(step.handle, step), log.add('z', step, 'uid:2')]);
        break;
      }
      case 'subscribe': {
        const since = step.back === null ? null : Math.max(0, log.head - step.back);
        const isRefused = step.handles.every((each) => each === UNKNOWN);
        if (model.all !== null && !isRefused) model.all.to = Math.min(model.all.to, log.head);
        this.#follow(step.handles, since);
        subscriber.subscribe(step.handles, since ?? undefined);
        break;
      }
      case 'unsubscribe':
        for (const each of step.handles) if (model.isFollowed(each)) model.ranges.get(each)!.at(-1)!.to = log.head;
        subscriber.unsubscribe(step.handles);
        break;
      case 'err':
        subscriber.error('EINVAL', 'This is no frame.');
        break;
      case 'slow down':
        reader.isSlow = true;
        break;
      case 'read':
        reader.isSlow = false;
        reader.read();
        break;
      case 'wait':
        await setImmediate();
        break;
      case 'pass':
        this.#pass(step.seconds);
    }
    this.check();
  }

  #pass(seconds: number): void {
    for (let passed = 0; passed < seconds; passed += 1) {
      this.#now += 1000;
      this.deadlines.run();
    }
  }

  /** A bookmark comes after a quiet time, and after all that precedes it. */
  #checkBookmark(seq: number): void {
    const { reader, log } = this;
    if (seq !== log.head || seq <= reader.cursor) throw new Error(`a bookmark at ${seq} after ${reader.cursor}`);
    if (this.#now - reader.sentAt < QUIET_MS)
      throw new Error(`a bookmark ${this.#now - reader.sentAt} ms after a frame`);
    if (reader.buffered > 0) throw new Error('a bookmark for a reader that is behind');
    if (this.#awaited.length > 0) throw new Error('a bookmark before the answer to a subscription');
    this.#requireAll((event) => event.seq <= seq, 'before a bookmark');
    this.bookmark = { seq, sent: reader.seqs.length, begun: new Map(this.#subscriptions) };
    this.bookmarks += 1;
  }

  /** Events up to a bookmark may only follow it if their handle was subscribed to after it. */
  #checkSinceBookmark(): void {
    if (this.bookmark === null) return;
    const { seq: mark, sent, begun } = this.bookmark;
    for (const seq of this.reader.seqs.slice(sent)) {
      const { handle } = this.log.events_[seq - 1]!;
      if (seq <= mark && begun.get(handle) === this.#subscriptions.get(handle))
        throw new Error(`event ${seq} of ${handle} follows the bookmark at ${mark}`);
    }
  }

  /** Checks what must hold at any time. */
  check(): void {
    const { seqs } = this.reader;
    this.#checkSinceBookmark();
    if (new Set(seqs).size < seqs.length) throw new Error(`an event was sent twice: ${seqs}`);
    for (const seq of seqs) {
      const event = this.log.events_[seq - 1]!;
      if (event.client !== CLIENT) throw new Error(`event ${seq} is another client's`);
      if (!this.model.mayHave(event)) throw new Error(`event ${seq} of ${event.handle} is not followed`);
    }
    for (const each of HANDLES) {
      const since = seqs.slice(this.#begun.get(each) ?? 0).filter((seq) => this.log.events_[seq - 1]!.handle === each);
      if (since.some((seq, at) => at > 0 && seq < since[at - 1]!)) throw new Error(`${each} is out of order: ${since}`);
    }
  }

  /** Checks what must hold once the reader has taken everything, or up to the cursor where it was cut off. */
  async finish(): Promise<void> {
    const { reader } = this;
    reader.isSlow = false;
    for (let quiet = 0; quiet < 3; quiet += 1) {
      await setImmediate();
      if (reader.read()) quiet = -1;
    }
    this.check();
    const last = reader.cutAt ?? this.log.head;
    this.#requireAll(({ seq }) => seq <= last, 'in the end');
    const isNew = [...this.#subscriptions].some(([each, count]) => this.bookmark?.begun.get(each) !== count);
    if (this.bookmark !== null && last < this.bookmark.seq && !isNew)
      throw new Error(`cut off at ${last}, before the bookmark at ${this.bookmark.seq}`);
    if (reader.cutAt === null) this.#checkQuiet();
    const followed = HANDLES.filter((each) => this.model.isFollowed(each)).length;
    if (reader.cutAt === null && this.reserved !== followed)
      throw new Error(`${this.reserved} reservations for ${followed} handles`);
    this.feed.detach(this.subscriber);
    if (this.reserved !== 0) throw new Error(`${this.reserved} reservations are left`);
    const count = reader.seqs.length;
    this.feed.push(HANDLES.map((each) => this.log.add(each, { type: 'stopped', labels: { a: '1', b: '1' } })));
    if (reader.seqs.length > count) throw new Error('an ended handle is still followed');
  }

  /** A reader of which nothing is pending gets to the head in time, and then no deadline is left. */
  #checkQuiet(): void {
    this.#pass(13);
    if (this.reader.cursor !== this.log.head) throw new Error(`quiet at ${this.reader.cursor} of ${this.log.head}`);
    if (this.deadlines.size > 0) throw new Error('a deadline is left');
    this.check();
  }

  #requireAll(isMeant: (event: Event) => boolean, when: string): void {
    const sent = new Set(this.reader.seqs);
    const missing = this.log.events_.filter(
      (event) => event.client === CLIENT && isMeant(event) && this.model.mustHave(event) && !sent.has(event.seq),
    );
    if (missing.length > 0) throw new Error(`${when}, events ${missing.map(({ seq }) => seq)} are missing`);
  }
}

const RUNS = Number(process.env.SUBSCRIBER_RUNS ?? 1000);

t.test(
  'any reader gets each event that fits once and in order, none is lost, and bookmarks keep their promise',
  async (t) => {
    let cuts = 0;
    let events = 0;
    let bookmarks = 0;
    const property = fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.record({ type, labels }), { maxLength: 20 }),
      fc.option(fc.uniqueArray(handle, { minLength: 1 }), { nil: undefined }),
      fc.option(fc.nat(20), { nil: undefined }),
      filter,
      fc.array(command, { maxLength: 60 }),
      async (page, past, handles, back, filter, commands) => {
        const since = back === undefined ? undefined : Math.max(0, past.length - back);
        const scene = new Scene({ page, past, handles, since, filter });
        for (const step of commands) {
          await scene.run(step);
          if (scene.reader.cutAt !== null) break;
        }
        await scene.finish();
        cuts += scene.reader.cutAt === null ? 0 : 1;
        events += scene.reader.seqs.length;
        bookmarks += scene.bookmarks;
      },
    );
    await fc.assert(property, { numRuns: RUNS });
    t.ok(cuts > 0, `${cuts} of ${RUNS} were cut off`);
    t.ok(events > RUNS, `${events} events were sent`);
    t.ok(bookmarks > RUNS / 2, `${bookmarks} bookmarks were sent`);
  },
);
