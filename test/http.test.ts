import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, temporaryDirectory } from './support/harness.ts';

const directory = temporaryDirectory(t);
const tokens = join(directory, 'tokens');
writeFileSync(tokens, '# who\nalice alice-token-0123456789\nbob bob-token-0123456789\n', { mode: 0o600 });
const daemon = await Daemon.start(t, { args: ['--tokens', tokens, '--allowed-host', 'waitd.example'] });
const as = (name: string): { tcp: true; headers: Record<string, string> } => ({
  tcp: true,
  headers: { authorization: `Bearer ${name}-token-0123456789` },
});

/** Returns the answer to raw bytes over TCP, until the close; `more` is sent after the first answer bytes. */
function raw(text: string, more = ''): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connect(daemon.port, '127.0.0.1', () => socket.write(text));
  let all = '';
  socket.on('data', (data) => {
    if (all === '') socket.write(more);
    all += data;
  });
  socket.on('close', () => resolve(all));
  socket.on('error', () => {});
  return promise;
}

t.test('credentials: missing, wrong or of the wrong kind; a token names the client on any listener', async (t) => {
  const cases = [{ authorization: '' }, { authorization: 'Bearer nobody-0123456789' }, { authorization: 'Basic YTpi' }];
  for (const headers of cases) {
    const answer = await daemon.get('/v1/handles', { tcp: true, headers });
    t.match(answer.body, { status: 401, errno: 'EACCES' });
    t.match(answer.headers['www-authenticate'], /^Bearer/);
  }
  t.match((await daemon.get('/v1/handles', { headers: { authorization: 'Bearer wrong-0123456789' } })).body, {
    status: 401,
  });
  const { body } = await daemon.post('/v1/handles', { spawn: { argv: ['true'] } }, as('alice'));
  t.equal(body.client, 'alice');
  t.equal(
    (await daemon.get(`/v1/handles/${body.id}`, { headers: as('alice').headers })).status,
    200,
    'on the Unix socket too',
  );
  for (const path of ['/metrics', '/v1/node', '/v1/events'])
    t.equal((await daemon.get(path, { tcp: true, headers: { authorization: '' } })).status, 401, path);
  for (const path of ['/livez', '/readyz', '/openapi.json'])
    t.equal((await daemon.get(path, { tcp: true, headers: { authorization: '' } })).status, 200, path);
});

t.test('a handle of another client gets the same answer as an id that never existed', async (t) => {
  const { body: handle } = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '100'] } }, as('alice'));
  const calls: [string, string, unknown?][] = [
    ['GET', ''],
    ['PATCH', '', {}],
    ['DELETE', ''],
    ['POST', '/waitid', {}],
    ['POST', '/signal', { signal: 9 }],
    ['POST', '/terminate', {}],
  ];
  for (const [method, tail, body] of calls) {
    const answers = [];
    for (const id of [handle.id, 'h_nosuch']) {
      const answer = await daemon.request(method, `/v1/handles/${id}${tail}`, {
        ...as('bob'),
        ...(body !== undefined && { body }),
      });
      answers.push({ ...answer.body, instance: '', handle: '' });
    }
    t.same(answers[0], answers[1]);
    t.match(answers[0], { status: 404, errno: 'EBADF' });
  }
  t.match((await daemon.post('/v1/handles', { dup: handle.id }, as('bob'))).body, { errno: 'EBADF' });
  t.match((await daemon.post('/v1/poll', { handles: [handle.id] }, as('bob'))).body, { errno: 'EBADF' });
  t.match((await daemon.get(`/v1/events?handle=${handle.id}`, as('bob'))).body, { errno: 'EBADF' });
  t.same((await daemon.get('/v1/handles', as('bob'))).body.handles, []);
  t.same((await daemon.get('/v1/events', as('bob'))).body.events, []);
  await daemon.request('DELETE', `/v1/handles/${handle.id}?signal=SIGKILL`, as('alice'));
});

t.test('each client collects the same process independently', async (t) => {
  const { body: one } = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '100'] } }, as('alice'));
  const { body: two } = await daemon.post('/v1/handles', { open: { pid: one.process.pid } }, as('bob'));
  t.match(two, { client: 'bob', relation: 'child' });
  await daemon.post(`/v1/handles/${one.id}/signal`, { signal: 'SIGSTOP' }, as('alice'));
  for (const [id, who] of [
    [one.id, 'alice'],
    [two.id, 'bob'],
  ])
    t.match((await daemon.waitid(id, { options: ['WSTOPPED'] }, as(who))).body, { siginfo: { code: 'CLD_STOPPED' } });
  await daemon.post(`/v1/handles/${two.id}/signal`, { signal: 'SIGKILL' }, as('bob'));
  for (const [id, who] of [
    [one.id, 'alice'],
    [two.id, 'bob'],
  ]) {
    t.match((await daemon.waitid(id, {}, as(who))).body, { outcome: { signal: 'SIGKILL' } });
    t.match((await daemon.waitid(id, {}, as(who))).body, { errno: 'ECHILD' });
  }
});

t.test('on TCP the Host must be an address, localhost or an allowed name', async (t) => {
  for (const host of ['localhost', 'localhost:80', '127.0.0.1', '[::1]:7411', '10.1.2.3:1', 'WAITD.example'])
    t.equal((await daemon.get('/livez', { tcp: true, headers: { ...as('bob').headers, host } })).status, 200, host);
  for (const host of ['evil.example', 'localhost.evil.example'])
    t.match(
      (await daemon.get('/livez', { tcp: true, headers: { ...as('bob').headers, host } })).body,
      { status: 421, errno: 'EPERM' },
      host,
    );
  t.equal((await daemon.get('/livez', { headers: { host: 'evil.example' } })).status, 200, 'ignored on a Unix socket');
});

t.test('requests that the HTTP layer refuses get a problem too', async (t) => {
  t.match((await daemon.get('/nope')).body, { status: 404, errno: 'EPROTO' });
  const put = await daemon.request('PUT', '/v1/handles/h_x');
  t.match(put.body, { status: 405, errno: 'EPROTO' });
  t.match(put.headers.allow, /GET.*PATCH.*DELETE|GET/);
  const xml = { body: '<a/>', headers: { 'content-type': 'text/xml' } };
  t.match((await daemon.request('POST', '/v1/handles', xml)).body, { status: 415, errno: 'EPROTO' });
  const huge = { spawn: { argv: ['true'], stdin: { text: 'x'.repeat(5_000_000) } } };
  t.match((await daemon.post('/v1/handles', huge)).body, { status: 413, errno: 'E2BIG' });
  t.match((await daemon.get(`/v1/events?handle=${'x'.repeat(50_000)}`)).body, { status: 414, errno: 'EPROTO' });
  t.match((await daemon.get(`/v1/handles/${'x'.repeat(500)}`)).body, { status: 414, errno: 'EPROTO' });
  t.match((await daemon.get('/v1/handles/%E0%A4%A')).body, { status: 400, errno: 'EPROTO' });
  t.match(
    await raw(`GET /livez HTTP/1.1\r\nx: ${'x'.repeat(70_000)}\r\n\r\n`),
    /^HTTP\/1.1 431[\s\S]*"errno":"EPROTO"/,
  );
  t.match(await raw('NONSENSE\r\n\r\n'), /^HTTP\/1.1 400[\s\S]*problem\+json[\s\S]*"errno":"EPROTO"/);
  t.match(await raw('GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n'), /^HTTP\/1.1 400[\s\S]*Host header/);
  t.match(
    await raw('CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n'),
    /^HTTP\/1.1 405[\s\S]*^allow: GET, [\s\S]*"errno":"EPROTO"/im,
  );
  t.match(
    await raw('GET /livez HTTP/1.1\r\nhost: localhost\r\nexpect: x\r\nx-request-id: mine\r\n\r\n'),
    /^HTTP\/1.1 417[\s\S]*x-request-id: mine[\s\S]*"errno":"EPROTO"/,
  );
  const upgrade = 'GET /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n';
  t.match(await raw(`${upgrade}sec-websocket-version: 12\r\n\r\n`), /^HTTP\/1.1 426[\s\S]*sec-websocket-version: 13/i);
  const kept = upgrade.replace('upgrade, close', 'upgrade');
  t.match(await raw(`${kept}sec-websocket-version: 13\r\n\r\n`), /^HTTP\/1.1 400[\s\S]*connection: close/i);
  const elsewhere = upgrade.replace('/v1/events', '/livez');
  t.match(await raw(`${elsewhere}sec-websocket-version: 13\r\n\r\n`), /^HTTP\/1.1 400[\s\S]*"errno":"EPROTO"/);
});

t.test(
  'no answer is sent out of turn, so that a client cannot take it for another answer or a part of one',
  async (t) => {
    const get = (path: string, ...headers: string[]): string =>
      [
        `GET ${path} HTTP/1.1`,
        'host: localhost',
        'authorization: Bearer bob-token-0123456789',
        ...headers,
        '',
        '',
      ].join('\r\n');
    const parked = get('/v1/events?timeoutMs=600000');
    for (const wrong of ['NONSENSE\r\n\r\n', 'CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n'])
      t.equal(await raw(parked + wrong), '', 'behind a parked call');
    const streamed = await raw(get('/v1/events', 'accept: text/event-stream'), 'NONSENSE\r\n\r\n');
    t.match(streamed, /^HTTP\/1.1 200[\s\S]*hello/);
    t.notMatch(streamed, /HTTP\/1.1 400/, 'in the middle of a stream');
    const inTurn = await raw(get('/v1/events?timeoutMs=1') + get('/livez', 'expect: x'));
    t.match(inTurn, /^HTTP\/1.1 200[\s\S]*"events"[\s\S]*HTTP\/1.1 417[\s\S]*"errno":"EPROTO"/);
  },
);

t.test('an upgrade behind unanswered requests is answered as a plain request', async (t) => {
  const upgrade = [
    'GET /v1/events HTTP/1.1',
    'host: localhost',
    'authorization: Bearer bob-token-0123456789',
    'connection: upgrade, close',
    'upgrade: websocket',
    'sec-websocket-version: 13',
    'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==',
  ];
  const answers = await raw(`GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n${upgrade.join('\r\n')}\r\n\r\n`);
  t.match(answers, /^HTTP\/1.1 200[\s\S]*"ok"[\s\S]*HTTP\/1.1 200[\s\S]*"events"/);
});

t.test('a valid request id of the client is kept', async (t) => {
  t.equal((await daemon.get('/livez', { headers: { 'x-request-id': 'my-id.1' } })).headers['x-request-id'], 'my-id.1');
  t.not((await daemon.get('/livez', { headers: { 'x-request-id': 'a b' } })).headers['x-request-id'], 'a b');
});

t.test('the node resource describes the node and its features', async (t) => {
  t.match((await daemon.get('/v1/node')).body, {
    version: /^\d/,
    kernel: { features: { nonblocking: true } },
    bootId: /-/,
    pid: daemon.pid,
    head: Number,
  });
  t.match((await daemon.get('/metrics')).text, /^waitd_live_handles \d+$/m);
  t.equal(await daemon.stop(), 0);
});

t.test('every route refuses an unknown query parameter, and none is dropped among a thousand', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sleep', '1000']);
  const { paths } = (await daemon.get('/openapi.json')).body;
  let asked = 0;
  for (const [path, methods] of Object.entries(paths) as [string, object][])
    for (const method of Object.keys(methods)) {
      const url = path.replace('{id}', id);
      const body = method === 'post' && path === '/v1/handles' ? { dup: id } : undefined;
      const answer = await daemon.request(method.toUpperCase(), `${url}?nonsense=1`, body && { body });
      t.match(answer, { status: 400, body: { errno: 'EINVAL' } }, `${method} ${path}`);
      asked += 1;
    }
  t.ok(asked > 15);
  const many = Array.from({ length: 1000 }, () => `handle=${id}`).join('&');
  t.match(await daemon.get(`/v1/events?${many}&nonsense=1`), { status: 400, body: { errno: 'EINVAL' } });
  t.equal((await daemon.get(`/v1/handles/${id}`)).body.state, 'running');
});
