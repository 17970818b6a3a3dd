import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import t from 'tap';
import type { Client } from '../src/clients/client.ts';
import { Feed } from '../src/feed/feed.ts';
import type { Sink } from '../src/feed/sink.ts';
import type { Subscriber } from '../src/feed/subscriber.ts';
import type { EventQuery, EventRows } from '../src/journal/event-rows.ts';
import type { Journal } from '../src/journal/journal.ts';
import type { Event } from '../src/model/event.ts';

const HANDLES = ['a', 'b', 'c'] as const;
const UNKNOWN = 'x';
const CLIENT = 'uid:1';
const BUFFER = 60;

/** A journal in memory. */
class Log {
  readonly node = 'n_test';
  readonly queries = this;
  readonly events_: Event[] = [];
  /** The largest number of events in a page. */
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

  events({ client, handles, since, limit }: EventQuery): EventRows {
    const found = this.events_.filter(
      (event) =>
        event.seq > since &&
        (client === null || event.client === client) &&
        (handles === undefined || handles.includes(event.handle)),
    );
    const most = Math.min(limit, this.#page);
    const events = found.slice(0, most);
    return { events, reached: found.length >= most ? events.at(-1)!.seq : null };
  }

  add(handle: string, client = CLIENT): Event {
    const seq = this.head + 1;
    const event: Event = {
      seq,
      type: 'stopped',
      handle,
      client,
      labels: {},
      at: 0,
      frame: JSON.stringify({ type: 'event', seq }),
    };
    this.events_.push(event);
    return event;
  }
}

/** A reader that takes buffered frames only when the test says so. */
class Reader implements Sink {
  readonly seqs: number[] = [];
  onSubscribed: (handles: string[]) => void = () => {};
  buffered = 0;
  isSlow = false;
  cutAt: number | null = null;
  readonly #flushing: (() => void)[] = [];

  send(text: string): void {
    if (this.isSlow) this.buffered += text.length;
    const frame = JSON.parse(text);
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

  constructor() {
    for (const handle of HANDLES) this.ranges.set(handle, []);
  }

  isFollowed(handle: string): boolean {
    return this.ranges.get(handle)!.at(-1)?.to === Number.POSITIVE_INFINITY;
  }

  /** Whether an event may have been sent. */
  mayHave({ handle, seq }: Event): boolean {
    return [this.all, ...this.ranges.get(handle)!].some((range) => range && seq > range.after && seq <= range.to);
  }

  /** Whether an event must have been sent once no work is pending. */
  mustHave({ handle, seq }: Event): boolean {
    const open = [this.all, this.ranges.get(handle)!.at(-1)].filter((range) => range?.to === Number.POSITIVE_INFINITY);
    return open.some((range) => seq > range!.after);
  }
}

type Command =
  | { do: 'event'; handle: string }
  | { do: 'subscribe'; handles: string[]; back: number | null }
  | { do: 'unsubscribe'; handles: string[] }
  | { do: 'err' }
  | { do: 'slow down' }
  | { do: 'read' }
  | { do: 'wait' };

const handle = fc.constantFrom(...HANDLES);
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('event' as const), handle }) },
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
);

/** One socket with its model, and the invariants. */
class Scene {
  readonly log: Log;
  readonly reader = new Reader();
  readonly feed: Feed;
  readonly subscriber: Subscriber;
  readonly model = new Model();
  /** How many handles count against the quota. */
  reserved = 0;
  /** Where the latest subscription of each handle begins among the sent frames. */
  readonly #begun = new Map<string, number>();
  /** The handles of each subscription that has not been confirmed yet. */
  readonly #awaited: Map<string, Awaited>[] = [];

  constructor(page: number, past: number, handles: string[] | undefined, since: number | undefined) {
    this.log = new Log(page);
    for (let count = 0; count < past; count += 1) this.log.add(HANDLES[count % HANDLES.length]!);
    this.feed = new Feed(this.log as unknown as Journal, BUFFER);
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
    const parts = { client, filter: {}, sink: this.reader, beginningOf };
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
    if (handles === undefined) this.model.all = { after: since ?? past, to: Number.POSITIVE_INFINITY };
    else this.#follow(handles, since ?? null);
    this.subscriber.start(handles, since);
  }

  #follow(handles: readonly string[], since: number | null): void {
    const awaited = new Map<string, Awaited>();
    for (const each of new Set(handles)) {
      if (each === UNKNOWN) continue;
      const ranges = this.model.ranges.get(each)!;
      const isFollowed = this.model.isFollowed(each);
      if (!isFollowed) {
        ranges.push({ after: since ?? 0, to: Number.POSITIVE_INFINITY });
        this.#begun.set(each, this.reader.seqs.length);
      }
      awaited.set(each, { range: ranges.at(-1)!, before: isFollowed ? this.log.head : Number.POSITIVE_INFINITY });
    }
    if (awaited.size > 0) this.#awaited.push(awaited);
  }

  async run(step: Command): Promise<void> {
    const { log, reader, subscriber, model, feed } = this;
    switch (step.do) {
      case 'event': {
        feed.push([log.add(step.handle), log.add('z', 'uid:2')]);
        break;
      }
      case 'subscribe': {
        const since = step.back === null ? null : Math.max(0, log.head - step.back);
        if (model.all !== null) model.all.to = Math.min(model.all.to, log.head);
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
    }
    this.check();
  }

  /** Checks what must hold at any time. */
  check(): void {
    const { seqs } = this.reader;
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
    const followed = HANDLES.filter((each) => this.model.isFollowed(each)).length;
    if (reader.cutAt === null && this.reserved !== followed)
      throw new Error(`${this.reserved} reservations for ${followed} handles`);
    this.feed.detach(this.subscriber);
    if (this.reserved !== 0) throw new Error(`${this.reserved} reservations are left`);
    const count = reader.seqs.length;
    this.feed.push(HANDLES.map((each) => this.log.add(each)));
    if (reader.seqs.length > count) throw new Error('an ended handle is still followed');
  }

  #requireAll(isMeant: (event: Event) => boolean, when: string): void {
    const sent = new Set(this.reader.seqs);
    const missing = this.log.events_.filter(
      (event) => event.client === CLIENT && isMeant(event) && this.model.mustHave(event) && !sent.has(event.seq),
    );
    if (missing.length > 0) throw new Error(`${when}, events ${missing.map(({ seq }) => seq)} are missing`);
  }
}

t.test('with any subscriptions and any reader, each event is sent once, in order, and none is lost', async (t) => {
  let cuts = 0;
  let events = 0;
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 5 }),
    fc.nat(20),
    fc.option(fc.uniqueArray(handle, { minLength: 1 }), { nil: undefined }),
    fc.option(fc.nat(20), { nil: undefined }),
    fc.array(command, { maxLength: 60 }),
    async (page, past, handles, back, commands) => {
      const since = back === undefined ? undefined : Math.max(0, past - back);
      const scene = new Scene(page, past, handles, since);
      for (const step of commands) {
        await scene.run(step);
        if (scene.reader.cutAt !== null) break;
      }
      await scene.finish();
      cuts += scene.reader.cutAt === null ? 0 : 1;
      events += scene.reader.seqs.length;
    },
  );
  await fc.assert(property, { numRuns: 1000 });
  t.ok(cuts > 0, `${cuts} of 1000 were cut off`);
  t.ok(events > 1000, `${events} events were sent`);
});
