import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t, { type Test } from 'tap';
import { Feed } from '../src/feed/feed.ts';
import { checkFrame, Daemon, withShortLimits } from './support/harness.ts';
import { head, tcp } from './support/wire.ts';

const daemon = await Daemon.start(t, { env: withShortLimits('feed/bookmarks.ts') });
const headOf = async (on = daemon): Promise<number> => (await on.get('/v1/node')).body.head;
// biome-ignore lint/suspicious/noExplicitAny: a frame can have any shape
type Frame = any;

/** Reads all events of a query up to the head, page by page. */
async function paged(query: string, since: number): Promise<Frame[]> {
  const events: Frame[] = [];
  for (let next = since; ; ) {
    const { body } = await daemon.get(`/v1/events?${query}&since=${next}&limit=1`);
    events.push(...body.events);
    next = body.next;
    if (body.events.length === 0) return events;
  }
}

/** Reads them from a WebSocket, up to the bookmark that says that all of them have come. */
async function pushed(query: string, since: number, until: number): Promise<Frame[]> {
  const socket = daemon.ws(`?${query}&since=${since}`);
  await socket.until(() => (socket.frames.at(-1)?.seq ?? 0) >= until);
  socket.close();
  return socket.events;
}

/** Reads them from an event stream in the same way. */
async function streamed(query: string, since: number, until: number): Promise<Frame[]> {
  const wire = tcp(daemon);
  wire.socket.write(head(daemon, `GET /v1/events?${query}&since=${since}`, 'accept: text/event-stream'));
  await wire.until(new RegExp(`"seq":${until}\\b.*\\n`));
  wire.socket.destroy();
  const text = Buffer.from(wire.text, 'latin1').toString();
  const frames = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data!));
  for (const frame of frames) checkFrame(frame);
  return frames.filter(({ type }) => type === 'event');
}

const patch = (id: string, labels: object) => daemon.request('PATCH', `/v1/handles/${id}`, { body: { labels } });

t.test('an event carries the labels that its handle had when it was written', async (t) => {
  const since = await headOf();
  const { id } = await daemon.spawn(['sleep', '100'], { labels: { job: '1', 'a.b/c': '"=é' } });
  await daemon.signal(id, 'SIGSTOP');
  await daemon.waitid(id, { options: ['WSTOPPED'] });
  await patch(id, { job: '2', 'a.b/c': null });
  await daemon.signal(id, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  await patch(id, { job: null });
  await daemon.request('DELETE', `/v1/handles/${id}`);
  const events = await paged('', since);
  t.same(
    events.map(({ event, labels }) => [event, labels]),
    [
      ['opened', { job: '1', 'a.b/c': '"=é' }],
      ['stopped', { job: '1', 'a.b/c': '"=é' }],
      ['exited', { job: '2' }],
      ['settled', { job: '2' }],
      ['closed', {}],
    ],
  );
  t.same(await pushed('', since, events.at(-1).seq), events);
  t.same(await streamed('', since, events.at(-1).seq), events);
});

t.test('label, type and handle combine, alike on pages, sockets and streams, live and replayed', async (t) => {
  const since = await headOf();
  const queries = ['job=1', 'job=2', 'team=x', 'team=x&label=job=2', 'job=2&type=exited', 'team=y', 'team=x=', 'team='];
  const live = queries.map((query) => daemon.ws(`?label=${query}`));
  for (const socket of live) await socket.first(({ type }) => type === 'hello');
  const a = await daemon.spawn(['sleep', '100'], { labels: { job: '1', team: 'x' } });
  const b = await daemon.spawn(['sleep', '100'], { labels: { job: '2', team: 'x' } });
  const c = await daemon.spawn(['sleep', '100'], { labels: { team: 'x=' } });
  await patch(a.id, { job: '2' });
  await patch(c.id, { team: '' });
  for (const { id } of [a, b, c]) {
    await daemon.signal(id, 'SIGKILL');
    await daemon.waitid(id);
  }
  const names = new Map([a, b, c].map(({ id }, at) => [id, 'abc'[at]]));
  const shown = (events: Frame[]): string[] =>
    events.filter(({ event }) => event !== 'settled').map(({ event, handle }) => `${names.get(handle)} ${event}`);
  const expected = [
    ['a opened'],
    ['b opened', 'a exited', 'b exited'],
    ['a opened', 'b opened', 'a exited', 'b exited'],
    ['b opened', 'a exited', 'b exited'],
    ['a exited', 'b exited'],
    [],
    ['c opened'],
    ['c exited'],
  ];
  const until = await headOf();
  const ways = { paged, pushed, streamed };
  const check = async (query: string, wanted: string[] | undefined): Promise<void> => {
    for (const [way, read] of Object.entries(ways))
      t.same(shown(await read(query, since, until)), wanted, `${query}, ${way}`);
  };
  await Promise.all(queries.map((query, at) => check(`label=${query}`, expected[at])));
  await check(`handle=${a.id}&handle=${c.id}&label=job=2`, ['a exited']);
  for (const [at, socket] of live.entries()) {
    await socket.until(() => (socket.frames.at(-1)?.seq ?? 0) >= until);
    t.same(shown(socket.events), expected[at], `${queries[at]}, live`);
    socket.close();
  }
});

t.test('a label is compared whole, also where the same text occurs elsewhere in the event', async (t) => {
  const since = await headOf();
  const labels = { 'k/1': 'a"b\\c', k2: ' =\n\u{1F600}é', constructor: '1' };
  const { id } = await daemon.spawn(['sh', '-c', 'exit 7', '"k":"v"', '{"labels":{"k":"v"}}'], { labels });
  await daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  const count = async (label: string): Promise<number> =>
    (await daemon.get(`/v1/events?since=${since}&label=${encodeURIComponent(label)}`)).body.events.length;
  for (const [key, value] of Object.entries(labels)) t.equal(await count(`${key}=${value}`), 3, key);
  for (const label of [
    'k=v',
    'type=event',
    'event=exited',
    'reason=exited',
    'k2=',
    'k=',
    "k') OR ('1'='1=1",
    '"k2":=1',
  ])
    t.equal(await count(label), 0, label);
});

t.test('a socket that is narrowed by frames keeps its filter', async (t) => {
  const labelled = await daemon.spawn(['sleep', '100'], { labels: { job: '7' } });
  const other = await daemon.spawn(['sleep', '100'], { labels: { job: '8' } });
  const socket = daemon.ws('?label=job=7&type=opened&type=exited');
  await socket.first(({ type }) => type === 'hello');
  socket.send({ type: 'subscribe', handles: [other.id, labelled.id] });
  await socket.first(({ type }) => type === 'subscribed');
  await daemon.signal(labelled.id, 'SIGSTOP');
  await daemon.waitid(labelled.id, { options: ['WSTOPPED'] });
  await patch(other.id, { job: '7' });
  for (const { id } of [other, labelled]) await daemon.signal(id, 'SIGKILL');
  await socket.until(() => socket.events.filter(({ event }) => event === 'exited').length === 2);
  const shown = socket.events.map(({ event, handle }) => `${event} ${handle}`);
  t.equal(shown[0], `opened ${labelled.id}`);
  t.same(shown.slice(1).sort(), [`exited ${labelled.id}`, `exited ${other.id}`].sort());
  socket.close();
});

t.test('a page waits for an event that fits, and passes over the others', async (t) => {
  const since = await headOf();
  const waiting = daemon.get(`/v1/events?since=${since}&label=job=9&type=exited&timeoutMs=60000`);
  const other = await daemon.spawn(['true'], { labels: { job: '8' } });
  await daemon.waitid(other.id);
  const { id } = await daemon.spawn(['true'], { labels: { job: '9' } });
  await daemon.waitid(id);
  t.match((await waiting).body, { events: [{ event: 'exited', handle: id, labels: { job: '9' } }], gap: null });
  const latest = await headOf();
  const none = (await daemon.get(`/v1/events?since=${since}&label=job=none&timeoutMs=1`)).body;
  t.same(none, { events: [], gap: null, next: latest });
});

t.test('the bounds of a label filter are those of the list of handles', async (t) => {
  const many = (count: number): string => Array.from({ length: count }, (_, n) => `label=k${n}=v`).join('&');
  t.equal((await daemon.get(`/v1/events?${many(64)}`)).status, 200);
  for (const query of [many(65), 'label=x', 'label=%3Dx', `label=k=${'v'.repeat(400)}`]) {
    t.match((await daemon.get(`/v1/events?${query}`)).body, { status: 400, errno: 'EINVAL' }, query.slice(0, 30));
    t.match((await daemon.ws(`?${query}`).closed).code, 1006, 'refused before the upgrade');
  }
});

/** Changes the tables of a stopped daemon, and starts it again. */
async function restarted(t: Test, change: (db: DatabaseSync) => void): Promise<Daemon> {
  const first = await Daemon.start(t);
  const { id } = await first.spawn(['true'], { labels: { job: '1' } });
  await first.post('/v1/poll', { handles: [id], for: 'settled' });
  await first.stop();
  const db = new DatabaseSync(join(first.directory, 'state', 'journal.sqlite'));
  change(db);
  db.close();
  return Daemon.start(t, { directory: first.directory, env: withShortLimits('feed/bookmarks.ts') });
}

t.test('events from before labels were stored fit no label', async (t) => {
  const old = await restarted(t, (db) => db.exec("UPDATE events SET frame = json_remove(frame, '$.labels')"));
  t.match((await old.get('/v1/events?since=0')).body.events, [
    { event: 'opened' },
    { event: 'exited' },
    { event: 'settled' },
  ]);
  t.same((await old.get('/v1/events?since=0&label=job=1')).body.events, []);
  t.equal(await old.stop(), 0);
});

t.test('a filter that fits one of 100,000 events lets other requests through while it searches', async (t) => {
  const big = await restarted(t, (db) =>
    db.exec(`WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
      INSERT INTO events SELECT (SELECT max(seq) FROM events) + n, client, handle, 'stopped', at,
        json_set(frame, '$.seq', (SELECT max(seq) FROM events) + n, '$.labels.job', iif(n = 77777, 'x', 'y'))
      FROM events, n WHERE type = 'opened'`),
  );
  const latest = await headOf(big);
  const seq = 3 + 77777;
  /** Counts the requests that are answered while another task runs. */
  const answeredDuring = async (task: Promise<unknown>): Promise<number> => {
    let isDone = false;
    void task.finally(() => {
      isDone = true;
    });
    let count = 0;
    for (; !isDone; count += 1) await big.get('/livez');
    return count;
  };
  for (const query of ['label=job=x', 'label=job=x&type=stopped', 'type=adopted']) {
    const pages = Promise.all(Array.from({ length: 10 }, () => big.get(`/v1/events?since=0&${query}`)));
    const answered = await answeredDuring(pages);
    t.ok(answered > 10, `${query}: ${answered} requests were answered during ten searches`);
    for (const { body } of await pages) {
      t.match(body, { gap: null, next: latest });
      const events = query.startsWith('label') ? [[seq, { job: 'x' }]] : [];
      t.same(
        body.events.map((event: Frame) => [event.seq, event.labels]),
        events,
      );
    }
  }
  const socket = big.ws('?since=0&label=job=x');
  await socket.first((frame) => frame.seq === seq);
  t.same(await socket.first(({ type }) => type === 'bookmark'), { type: 'bookmark', seq: latest });
  t.equal(socket.events.length, 1);
  socket.close();
  // A search whose caller leaves ends.
  const caller = new AbortController();
  const left = big.get('/v1/events?since=0&label=job=x', { signal: caller.signal });
  caller.abort();
  await t.rejects(left);
  t.equal(await big.stop(), 0);
});

t.test('pages that search take turns, and each leaves the event loop after its slice', async (t) => {
  const READ_MS = 1;
  const READS = 200;
  let turns = 0;
  let reads = 0;
  let readsInTurn = 0;
  let most = 0;
  // Each read takes a millisecond and finds nothing.
  const journal = {
    oldest: 1,
    head: READS,
    gapAfter: () => null,
    queries: {
      events: ({ since }: { since: number }) => {
        for (const began = performance.now(); performance.now() - began < READ_MS; );
        reads += 1;
        readsInTurn += 1;
        most = Math.max(most, readsInTurn);
        return { events: [], reached: since + 1 === READS ? null : since + 1 };
      },
    },
  };
  const count = (): void => {
    turns += 1;
    readsInTurn = 0;
    if (reads < 3 * READS) setImmediate(count);
  };
  const feed = new Feed(journal as never, 4096, null as never);
  const request = {
    client: { scope: null },
    since: 0,
    limit: 10,
    caller: { abortSignal: new AbortController().signal },
  };
  const pages = [1, 2, 3].map(() => feed.page(request as never));
  setImmediate(count);
  t.same(
    await Promise.all(pages),
    pages.map(() => ({ frames: [], gap: null, next: READS })),
  );
  t.equal(reads, 3 * READS);
  t.ok(most <= 11, `${most} reads in one turn`);
  t.ok(turns >= (3 * READS) / 11, `${turns} turns`);
});

t.teardown(() => daemon.stop());
