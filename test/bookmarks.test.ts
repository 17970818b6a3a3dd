import t from 'tap';
import { Daemon, withShortLimits } from './support/harness.ts';
import { head, tcp, type Wire } from './support/wire.ts';

const daemon = await Daemon.start(t, { env: withShortLimits('feed/bookmarks.ts'), args: ['--max-events', '1000'] });
const headOf = async (): Promise<number> => (await daemon.get('/v1/node')).body.head;
const other = await daemon.spawn(['sleep', '1000']);

/** Makes events of other handles, two at a time. */
async function makeEvents(pairs: number): Promise<void> {
  const make = async (count: number): Promise<void> => {
    for (let made = 0; made < count; made += 1) {
      const { body } = await daemon.post('/v1/handles', { dup: other.id });
      await daemon.request('DELETE', `/v1/handles/${body.id}`);
    }
  };
  const workers = Math.min(pairs, 10);
  await Promise.all(Array.from({ length: workers }, () => make(Math.ceil(pairs / workers))));
}

/** Makes events until retention has removed one. @returns the oldest that is left, which is one of the last thousand */
async function trimBeyond(seq: number): Promise<number> {
  for (;;) {
    await makeEvents(20);
    await daemon.get('/v1/events?limit=1'); // applies all events to the tables, which removes the oldest
    const { oldest } = (await daemon.get('/v1/node')).body;
    if (oldest - 1 > seq) return oldest;
  }
}

async function stream(query: string, ...headers: string[]): Promise<Wire> {
  const wire = tcp(daemon);
  wire.socket.write(head(daemon, `GET /v1/events${query}`, 'accept: text/event-stream', ...headers));
  await wire.until(/"hello"/);
  return wire;
}

t.test(
  'a quiet subscriber resumes from its bookmark without a gap, and without the bookmark there is one',
  async (t) => {
    const { id } = await daemon.spawn(['sleep', '100'], { labels: { job: '1' } });
    for (const query of [`handle=${id}`, 'label=job=1', 'type=exited&label=job=1']) {
      const socket = daemon.ws(`?${query}&since=0`);
      await socket.first(({ type }) => type === 'hello');
      await makeEvents(900);
      const latest = await headOf();
      await socket.first(({ type, seq }) => type === 'bookmark' && seq === latest);
      t.ok(
        socket.frames.every(({ type, seq }, at) => type !== 'bookmark' || seq > (socket.frames[at - 1].seq ?? 0)),
        'bookmarks grow',
      );
      const last = socket.events.at(-1)?.seq ?? 0;
      socket.close();
      const oldest = await trimBeyond(last);
      t.ok(oldest - 1 <= latest, `${last} is removed and ${latest} is not`);

      const without = daemon.ws(`?${query}&since=${last}`);
      t.same(await without.first(({ type }) => type === 'gap'), { type: 'gap', from: last + 1, to: oldest - 1 });
      without.close();
      const resumed = daemon.ws(`?${query}&since=${latest}`);
      await resumed.first(({ type }) => type === 'hello');
      await daemon.signal(id, 'SIGSTOP');
      await daemon.waitid(id, { options: ['WSTOPPED'] });
      await daemon.signal(id, 'SIGCONT');
      await daemon.waitid(id, { options: ['WCONTINUED'] });
      const after = await headOf();
      await resumed.until(() => (resumed.frames.at(-1)?.seq ?? 0) >= after);
      t.same(
        resumed.events.map(({ event }) => event),
        query.startsWith('type') ? [] : ['stopped', 'continued'],
      );
      t.notOk(
        resumed.frames.some(({ type }) => type === 'gap'),
        'no gap',
      );
      resumed.close();
    }
    await daemon.signal(id, 'SIGKILL');
  },
);

t.test('an event stream has the bookmark as its id, and resumes from there', async (t) => {
  const { id, seq: opened } = await daemon.spawn(['sleep', '100'], { labels: { job: '2' } });
  const quiet = await stream('?label=job=2');
  await makeEvents(900);
  const latest = await headOf();
  await quiet.until(new RegExp(`^id: ${latest}\\ndata: {"type":"bookmark","seq":${latest}}\\n\\n`, 'm'));
  quiet.socket.destroy();
  t.ok((await trimBeyond(opened)) - 1 <= latest);
  const resumed = await stream('?label=job=2', `last-event-id: ${latest}`);
  await daemon.signal(id, 'SIGKILL');
  await resumed.until(/"exited"/);
  t.notMatch(resumed.text, /"gap"|"opened"/);
  resumed.socket.destroy();
});

t.test('a stream at the head gets none, and one that is behind gets it after its replays', async (t) => {
  const mine = await daemon.spawn(['sleep', '100']);
  const unfiltered = daemon.ws();
  const narrow = daemon.ws('?type=adopted');
  for (const socket of [unfiltered, narrow]) await socket.first(({ type }) => type === 'hello');
  await makeEvents(20);
  narrow.send({ type: 'subscribe', handles: [mine.id] });
  const latest = await headOf();
  await narrow.first(({ type, seq }) => type === 'bookmark' && seq === latest);
  t.same(
    narrow.frames.map(({ type }) => type),
    ['hello', 'subscribed', 'bookmark'],
  );
  t.equal(unfiltered.frames.at(-1).seq, latest);
  await daemon.signal(mine.id, 'SIGKILL');
  await unfiltered.first(({ event, handle }) => event === 'settled' && handle === mine.id);
  await narrow.first(({ type, seq }) => type === 'bookmark' && seq > latest);
  t.notOk(unfiltered.frames.some(({ type }) => type === 'bookmark'));
  // What it asks for after a bookmark comes, also from before it.
  const wide = daemon.ws(`?handle=${other.id}`);
  await wide.first(({ type }) => type === 'bookmark');
  wide.send({ type: 'subscribe', handles: [mine.id] });
  await wide.first(({ type, handles }) => type === 'subscribed' && handles[0] === mine.id);
  t.same(
    wide.events.filter(({ handle }) => handle === mine.id).map(({ event }) => event),
    ['opened', 'exited', 'settled'],
  );
  for (const socket of [unfiltered, narrow, wide]) socket.close();
});

t.test('more quiet sockets than one turn of the event loop serves all get their bookmarks', async (t) => {
  const sockets: ReturnType<Daemon['ws']>[] = [];
  for (let count = 0; count < 600; count += 1) {
    const socket = daemon.ws('?type=adopted');
    await socket.first(({ type }) => type === 'hello');
    sockets.push(socket);
  }
  await makeEvents(1);
  const latest = await headOf();
  await Promise.all(sockets.map((socket) => socket.first(({ type, seq }) => type === 'bookmark' && seq === latest)));
  t.equal((await daemon.get('/livez')).status, 200);
  for (const socket of sockets) socket.close();
});

t.teardown(() => daemon.stop());

t.test('a page that waits passes over what is trimmed meanwhile, without a gap', async (t) => {
  const { id } = await daemon.spawn(['sleep', '100'], { labels: { job: '2' } });
  for (const query of [`handle=${id}`, 'label=job=2']) {
    const since = await headOf();
    const waiting = daemon.get(`/v1/events?${query}&since=${since}&timeoutMs=60000`);
    await makeEvents(900); // takes hundreds of round trips, by which the page waits
    await trimBeyond(since);
    await daemon.signal(id, query.startsWith('handle') ? 'SIGSTOP' : 'SIGKILL');
    const { body } = await waiting;
    t.equal(body.gap, null);
    t.match(body.events[0], { handle: id });
  }
});
