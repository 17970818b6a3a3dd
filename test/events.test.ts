import { get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import t from 'tap';
import { Feed } from '../src/feed/feed.ts';
import { Daemon, eventually } from './support/harness.ts';

const daemon = await Daemon.start(t);
// biome-ignore lint/suspicious/noExplicitAny: a frame can have any shape
const types = (events: any[]): string[] => events.map((event) => event.event);

t.test('a socket without handles receives all events of its client from the head on', async (t) => {
  await daemon.waitid((await daemon.spawn(['true'])).id);
  const socket = daemon.ws();
  const hello = await socket.first((frame) => frame.type === 'hello');
  t.match(hello, { node: /^n_/, head: Number, oldest: 1 });
  t.equal(socket.ws.protocol, 'waitd.v1');
  const { id, seq } = await daemon.spawn(['sh', '-c', 'exit 7']);
  const exited = await socket.first((frame) => frame.event === 'exited' && frame.handle === id);
  t.match(exited, {
    type: 'event',
    process: { argv: ['sh', '-c', 'exit 7'] },
    outcome: { reason: 'exited', exitCode: 7 },
    siginfo: { code: 'CLD_EXITED', status: 7 },
    rusage: { userUs: Number },
  });
  t.ok(exited.seq > seq && socket.events[0].seq === hello.head + 1);
  socket.close();
});

t.test('a subscription after the exit still receives it; the replay precedes the subscribed frame', async (t) => {
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  for (const socket of [daemon.ws(`?handle=${id}`), daemon.ws()]) {
    await socket.first((frame) => frame.type === 'hello');
    if (socket.events.length === 0) socket.send({ type: 'subscribe', handles: [id] });
    await socket.first((frame) => frame.type === 'subscribed');
    t.same(types(socket.events), ['opened', 'exited', 'settled']);
    t.same(socket.frames.at(-1), { type: 'subscribed', handles: [id] });
    socket.close();
  }
});

t.test('the first subscribe narrows; no event is sent twice, in any order of subscribe and unsubscribe', async (t) => {
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  const { id, process: child } = await daemon.spawn(['sleep', '100']);
  const other = await daemon.spawn(['sleep', '100']);
  await socket.first((frame) => frame.handle === other.id);
  const count = (): number => socket.frames.filter((frame) => frame.type === 'subscribed').length;
  for (let round = 1; round <= 3; round += 1) {
    socket.send({ type: 'subscribe', handles: [id] });
    await socket.until(() => count() === round);
    if (round < 3) socket.send({ type: 'unsubscribe', handles: [id] });
    if (round === 2) {
      socket.send({ type: 'subscribe', handles: ['h_nosuch'] });
      await socket.first((frame) => frame.type === 'error' && frame.errno === 'EBADF');
      await daemon.signal(id, 'SIGSTOP');
      await daemon.waitid(id, { options: ['WSTOPPED'] });
    }
  }
  await daemon.signal(other.id, 'SIGKILL');
  process.kill(child.pid, 'SIGKILL');
  await socket.first((frame) => frame.event === 'settled');
  t.same(types(socket.events.filter((event) => event.handle === id)), ['opened', 'stopped', 'exited', 'settled']);
  t.same(types(socket.events.filter((event) => event.handle === other.id)), ['opened']);
  await daemon.waitid(other.id); // so that it causes no event during the next test
  t.equal(new Set(socket.events.map((event) => event.seq)).size, socket.events.length);
  socket.close();
});

t.test('a subscription from an earlier cursor replays what a later one has left out', async (t) => {
  const { id } = await daemon.spawn(['sleep', '60']);
  const [{ seq }] = await daemon.events(id);
  const socket = daemon.ws(`?handle=${id}&since=${seq}`);
  await socket.first((frame) => frame.type === 'subscribed');
  t.same(types(socket.events), []);
  socket.send({ type: 'subscribe', handles: [id], since: seq });
  socket.send({ type: 'subscribe', handles: [id] });
  await socket.until(() => socket.frames.filter(({ type }) => type === 'subscribed').length === 3);
  t.same(types(socket.events), ['opened']);
  await daemon.signal(id, 'SIGKILL');
  await socket.first(({ event }) => event === 'settled');
  t.same(types(socket.events), ['opened', 'exited', 'settled'], 'none twice');
  socket.close();
});

t.test('a subscription that is refused narrows nothing', async (t) => {
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  socket.send({ type: 'subscribe', handles: ['h_nosuch'] });
  t.match(await socket.first(({ type }) => type === 'error'), { errno: 'EBADF' });
  const { id } = await daemon.spawn(['true']);
  await socket.first(({ event, handle }) => event === 'exited' && handle === id);
  socket.close();
});

t.test('since resumes after its cursor, type filters, and a since beyond the head is a gap that resets', async (t) => {
  const { head } = (await daemon.get('/v1/node')).body;
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  const resumed = daemon.ws(`?since=${head}&type=exited&type=closed`);
  await resumed.first((frame) => frame.event === 'exited' && frame.handle === id);
  t.same(types(resumed.events), ['exited']);
  resumed.close();
  const now = (await daemon.get('/v1/node')).body.head;
  const beyond = daemon.ws('?since=1000000');
  t.same(await beyond.first((frame) => frame.type === 'gap'), { type: 'gap', from: now + 1, to: 1000000, reset: true });
  const next = await daemon.spawn(['true']);
  await beyond.first((frame) => frame.handle === next.id);
  await daemon.waitid(next.id);
  beyond.close();
  const page = (await daemon.get('/v1/events?since=1000000')).body;
  t.match(page, { events: [], gap: { to: 1000000, reset: true } });
});

t.test('pages: limit, next, filters, and waiting for the first event', async (t) => {
  const { head } = (await daemon.get('/v1/node')).body;
  const { id } = await daemon.spawn(['sleep', '100']);
  const first = (await daemon.get(`/v1/events?since=${head}&limit=1`)).body;
  t.match(first, { events: [{ type: 'event', event: 'opened', handle: id }], gap: null, next: head + 1 });
  const filtered = (await daemon.get(`/v1/events?since=${head}&type=exited`)).body;
  t.match(filtered, { events: [], gap: null, next: head + 1 }, 'next skips events that the filter excludes');
  const waiting = daemon.get(`/v1/events?since=${head}&type=exited&handle=${id}&timeoutMs=60000`);
  await daemon.signal(id, 'SIGKILL');
  t.match((await waiting).body.events, [{ event: 'exited', handle: id }]);
  t.match((await daemon.get(`/v1/events?since=${head + 3}&timeoutMs=1`)).body, { events: [], next: head + 3 });
  for (const query of [
    'since=-1',
    'since=x',
    'type=nope',
    'limit=0',
    'nope=1',
    '__proto__=1',
    'timeoutMs=-1',
    'since=1&since=2',
  ])
    t.match((await daemon.get(`/v1/events?${query}`)).body, { status: 400, errno: 'EINVAL' }, query);
  t.match((await daemon.get('/v1/events?handle=h_nosuch')).body, { status: 404, errno: 'EBADF' });
  t.match((await daemon.get('/v1/events', { headers: { accept: 'text/html' } })).body, {
    status: 406,
    errno: 'EPROTO',
  });
});

t.test('an event stream has frames with ids; Last-Event-ID resumes and overrides since', async (t) => {
  const { id, seq } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  const text = await new Promise<string>((resolve) => {
    const headers = { accept: 'text/event-stream', 'last-event-id': String(seq + 1) };
    const request = get({ socketPath: daemon.socket, path: `/v1/events?handle=${id}&since=0`, headers }, (response) => {
      t.equal(response.headers['content-type'], 'text/event-stream');
      let all = '';
      response.on('data', (chunk) => {
        all += chunk;
        if (!all.includes('"subscribed"')) return;
        request.destroy();
        resolve(all);
      });
      response.on('error', () => {});
    });
    request.on('error', () => {});
  });
  const [hello, exited, settled, subscribed] = text.trim().split('\n\n');
  t.match(hello, /^id: \d+\ndata: \{"type":"hello"/);
  t.match(exited, new RegExp(`^id: ${seq + 2}\ndata: \\{"type":"event","seq":${seq + 2},"event":"exited"`));
  t.match(settled, `"seq":${seq + 3},"event":"settled"`);
  t.match(subscribed, /^data: \{"type":"subscribed"/);
  const bad = await daemon.get('/v1/events', { headers: { accept: 'text/event-stream', 'last-event-id': 'x' } });
  t.match(bad.body, { status: 400, errno: 'EINVAL' });
});

t.test('an invalid frame is answered with an error frame, and the socket stays open', async (t) => {
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  const bad = ['{', '[]', '{"type":"nope"}', '{"type":"subscribe"}', '{"type":"subscribe","handles":[],"x":1}'];
  for (const frame of bad) socket.send(frame);
  socket.ws.send(Buffer.from([1, 2]));
  await socket.until(() => socket.frames.filter((frame) => frame.errno === 'EINVAL').length === bad.length + 1);
  const { id } = await daemon.spawn(['true']);
  t.ok(await socket.first((frame) => frame.handle === id));
  socket.close();
});

t.test('bad credentials, queries and subprotocols are refused before the upgrade', async (t) => {
  const refusal = (query: string, protocols: string[], tcp = false): Promise<number> => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const headers = {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      ...(protocols.length && { 'sec-websocket-protocol': protocols.join(', ') }),
    };
    const where = tcp ? { host: '127.0.0.1', port: daemon.port } : { socketPath: daemon.socket };
    const request = get({ ...where, path: `/v1/events${query}`, headers }, (response) => resolve(response.statusCode!));
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.statusCode!);
    });
    return promise;
  };
  const bearer = (token: string): string =>
    `base64url.bearer.authorization.waitd.${Buffer.from(token).toString('base64url')}`;
  t.equal(await refusal('', []), 101, 'no subprotocol offered is fine');
  t.equal(await refusal('', ['other']), 400);
  t.equal(await refusal('?nope=1', []), 400);
  t.equal(await refusal('', ['waitd.v1'], true), 401);
  t.equal(await refusal('', ['waitd.v1', bearer('wrong-token-0123456789')], true), 401);
  const right = bearer(daemon.token);
  t.equal(await refusal('', ['waitd.v1', right], true), 101);
  t.equal(
    await refusal('', ['waitd.v1', right, bearer('wrong-token-0123456789')], true),
    401,
    'two protocols are ambiguous',
  );
});

t.test('a slow reader is cut off with 1013, resumes, and loses nothing', async (t) => {
  const slow = await Daemon.start(t, { args: ['--socket-buffer', '4096'] });
  const { head } = (await slow.get('/v1/node')).body;
  const socket = slow.ws('?since=0');
  await socket.first((frame) => frame.type === 'hello');
  socket.ws.pause();
  const long = 'x'.repeat(100_000); // fills the kernel's buffers between the two
  const ids: string[] = [];
  while (!(await slow.get('/metrics')).text.includes('waitd_subscribers_cut_total 1\n'))
    ids.push((await slow.spawn(['true', long])).id);
  socket.ws.resume();
  const { code, reason } = await socket.closed;
  const last = socket.events.at(-1)?.seq ?? head;
  t.same({ code, reason }, { code: 1013, reason: `resume since=${last}` });
  await slow.post('/v1/poll', { handles: ids, until: 'all' });
  const resumed = slow.ws(`?since=${last}`);
  const end = (await slow.get('/v1/node')).body.head;
  await resumed.first((frame) => frame.seq === end);
  const seqs = [...socket.events, ...resumed.events].map((event) => event.seq);
  t.same(
    seqs,
    Array.from({ length: end }, (_, index) => index + 1),
  );
  resumed.close();
});

t.test('a reader that stops during a replay is cut off as well, by WebSocket and by event stream', async (t) => {
  const slow = await Daemon.start(t, { args: ['--socket-buffer', '4096'] });
  // Two events of 4 KiB per handle exceed the buffers of the kernel and of a stopped reader.
  const { id } = await slow.spawn(['true', 'x'.repeat(4000)]);
  for (let n = 0; n < 200; n += 1) await slow.post('/v1/handles', { dup: id });
  const socket = slow.ws('?since=0');
  await socket.first((frame) => frame.type === 'hello');
  socket.ws.pause();
  const isCut = (times: number) => async (): Promise<boolean> =>
    (await slow.get('/metrics')).text.includes(`waitd_subscribers_cut_total ${times}\n`);
  await eventually(isCut(1));
  socket.ws.resume(); // at once: a socket that is cut off has a second to read the reason
  const { code, reason } = await socket.closed;
  t.same({ code, reason }, { code: 1013, reason: `resume since=${socket.events.at(-1)?.seq ?? 0}` });
  const stream = await new Promise<IncomingMessage>((resolve) =>
    get({ socketPath: slow.socket, path: '/v1/events?since=0', headers: { accept: 'text/event-stream' } }, resolve),
  );
  stream.on('error', () => {}); // an end is expected
  await eventually(isCut(2));
  stream.destroy();
  t.equal(await slow.stop(), 0);
});

t.test('HEAD on a stream answers with its headers', async (t) => {
  const answer = await daemon.request('HEAD', '/v1/events', { headers: { accept: 'text/event-stream' } });
  t.match(answer, { status: 200, text: '', headers: { 'content-type': /event-stream/, 'cache-control': 'no-store' } });
});

t.test('a frame that names too many handles gets an error frame', async (t) => {
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  socket.send({ type: 'subscribe', handles: Array.from({ length: 1001 }, (_, n) => `h_${n}`) });
  t.match(await socket.first((frame) => frame.type === 'error'), { errno: 'EINVAL', detail: /\/handles: .*1000/ });
  socket.send({ type: 'subscribe', handles: ['h_1'], x: 1 });
  t.match(await socket.first((frame) => frame.detail?.includes('"x"')), { type: 'error', errno: 'EINVAL' });
  socket.close();
});

t.test('retention leaves a gap, in pages and on sockets, and seqs continue after a restart', async (t) => {
  const small = await Daemon.start(t, { args: ['--max-events', '1000'] });
  for (let n = 0; n < 1100; n += 1) await small.request('DELETE', `/v1/handles/${(await small.spawn(['true'])).id}`);
  await small.get('/v1/events?since=0&limit=1'); // a read applies all events to the tables, which removes the oldest
  const { head, oldest } = (await small.get('/v1/node')).body;
  t.ok(oldest > 1, 'some events have expired');
  const page = (await small.get('/v1/events?since=0&limit=1')).body;
  t.match(page, { gap: { from: 1, to: oldest - 1 }, events: [{ seq: oldest }] });
  const socket = small.ws('?since=0');
  t.same(await socket.first((frame) => frame.type === 'gap'), { type: 'gap', from: 1, to: oldest - 1 });
  await socket.first((frame) => frame.seq === head);
  socket.close();
  await small.stop();
  const again = await Daemon.start(t, { args: ['--max-events', '1000'], directory: small.directory });
  t.equal((await again.get('/v1/node')).body.head >= head, true);
  const { seq } = await again.spawn(['true']);
  t.ok(seq >= head);
});

t.test('a page whose read finds the journal damaged contains a gap for the lost events', async (t) => {
  let gap: object | null = null;
  const damaged = {
    oldest: 1,
    head: 10,
    gapAfter: () => gap,
    queries: {
      events: () => {
        gap = { from: 1, to: 10, reset: true };
        return { events: [], reached: null };
      },
    },
  };
  const request = { client: { scope: null }, since: 0, limit: 10, timeoutMs: undefined };
  const page = await new Feed(damaged as never, 4096, null as never).page(request as never);
  t.match(page, { frames: [], gap: { from: 1, to: 10, reset: true }, next: 10 });
});

t.test('sockets close with 1001 when the daemon stops', async (t) => {
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  const stream = connect(daemon.socket);
  stream.write('GET /v1/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n');
  await eventually(async () => (await daemon.get('/metrics')).text.includes('waitd_subscribers 2\n'));
  const ended = new Promise((resolve) => stream.resume().once('end', resolve));
  const code = daemon.stop();
  t.equal((await socket.closed).code, 1001);
  await ended;
  t.equal(await code, 0);
});
