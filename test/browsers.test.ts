import { connect } from 'node:net';
import t from 'tap';
import { WebSocket } from 'ws';
import { Daemon, type RequestOptions, type Response } from './support/harness.ts';

const DASH = 'https://dash.example';
const daemon = await Daemon.start(t, {
  args: ['--allowed-origin', DASH, '--allowed-origin', 'HTTP://Old.example:80', '--allowed-host', 'waitd.example'],
});

const from = (origin: string, more: Record<string, string> = {}): RequestOptions => ({
  tcp: true,
  headers: { origin, ...more },
});
const listed = async (): Promise<number> => (await daemon.get('/v1/handles', { tcp: true })).body.handles.length;

/** Returns how an upgrade to a WebSocket over TCP ends. */
function upgrade(origin: string | undefined): Promise<number | 'open'> {
  const { promise, resolve, reject } = Promise.withResolvers<number | 'open'>();
  const headers = { authorization: `Bearer ${daemon.token}` };
  const socket = new WebSocket(`ws://127.0.0.1:${daemon.port}/v1/events`, ['waitd.v1'], {
    headers,
    ...(origin !== undefined && { origin }),
  });
  socket.on('open', () => {
    socket.terminate();
    resolve('open');
  });
  socket.on('unexpected-response', (_request, response) => resolve(response.resume().statusCode!));
  socket.on('error', reject);
  return promise;
}

/** Returns the answer to raw bytes over TCP. */
function raw(head: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connect(daemon.port, '127.0.0.1', () => socket.write(`${head}connection: close\r\n\r\n`));
  let all = '';
  socket.setEncoding('utf8').on('data', (data: string) => {
    all += data;
  });
  socket.on('close', () => resolve(all));
  return promise;
}

t.test(
  'requests of foreign pages are refused before they have an effect; own and listed origins are accepted',
  async (t) => {
    const own = `http://127.0.0.1:${daemon.port}`;
    const before = await listed();
    const strange = [
      'null',
      '',
      'http://evil.example',
      `${DASH}.evil.example`,
      `${DASH}:8443`,
      'http://dash.example',
      'https://old.example',
      `https://127.0.0.1:${daemon.port}`,
      'http://127.0.0.1',
      `http://localhost:${daemon.port}`,
      `${DASH}, ${DASH}`,
      '*',
    ];
    const spawn = (origin: string): Promise<Response> =>
      daemon.post('/v1/handles', { spawn: { argv: ['true'] } }, from(origin));
    for (const origin of strange) {
      const { status, body, headers } = await spawn(origin);
      t.match({ status, body }, { status: 403, body: { errno: 'EPERM' } }, origin);
      t.notOk(headers['access-control-allow-origin']);
      t.equal(await upgrade(origin), origin === '' ? 'open' : 403, `a WebSocket of ${origin}`);
      t.equal((await daemon.get('/livez', from(origin))).status, 403);
    }
    t.equal(
      (await daemon.get('/v1/handles', { headers: { origin: 'http://evil.example' } })).status,
      403,
      'on the Unix socket',
    );
    t.equal(await listed(), before, 'the request had no effect');
    for (const origin of [own, DASH, 'http://old.example']) {
      t.equal((await spawn(origin)).status, 201, origin);
      t.equal(await upgrade(origin), 'open');
    }
    t.equal(await upgrade(undefined), 'open', 'no browser');
    const atPort80 = { host: 'waitd.example' };
    t.equal((await daemon.get('/livez', from('http://waitd.example', atPort80))).status, 200);
    t.equal((await daemon.get('/livez', from('http://waitd.example', { host: 'WAITD.example:80' }))).status, 200);
    t.equal(
      (await daemon.get('/livez', from('http://evil.example', { host: 'evil.example' }))).status,
      421,
      'rebinding',
    );
  },
);

t.test(
  'pages of listed origins may read answers, problems and streams; the browser’s own credentials are not used',
  async (t) => {
    const { id } = await daemon.spawn(['sh', '-c', 'echo hello'], {}, { stdout: 'capture' });
    await daemon.waitid(id);
    const socket = { headers: { origin: DASH } };
    const answers = [
      await daemon.get('/v1/node', socket),
      await daemon.get('/nope', socket),
      await daemon.get('/v1/handles/%E0%A4%A', from('http://old.example')),
      await daemon.waitid(id, {}, socket),
      await daemon.get(`/v1/handles/${id}/stdout`, socket),
      await daemon.get(`/v1/handles/${id}/stdout?follow=1`, socket),
      await daemon.get('/livez', from(DASH, { host: 'evil.example' })),
      await daemon.get('/v1/handles', from(DASH, { authorization: 'Bearer wrong-0123456789abcdef' })),
    ];
    t.same(
      answers.map(({ status }) => status),
      [200, 404, 400, 410, 200, 200, 421, 401],
    );
    for (const { status, headers } of answers) {
      t.equal(headers['x-content-type-options'], 'nosniff');
      t.notOk(headers['set-cookie']);
      t.notOk(headers['access-control-allow-credentials']);
      if (status === 400) continue; // refused by the framework itself: a page cannot read it, and it had no effect
      t.equal(headers['access-control-allow-origin'], DASH);
      t.equal(headers.vary, 'Origin');
      const exposed = headers['access-control-expose-headers']!.toLowerCase().split(', ');
      for (const name of [
        'x-request-id',
        'retry-after',
        'link',
        'location',
        'preference-applied',
        'idempotent-replayed',
        'waitd-offset',
        'content-range',
      ])
        t.ok(exposed.includes(name), name);
    }
    const stream = await raw(
      `GET /v1/events HTTP/1.1\r\nhost: localhost\r\norigin: ${DASH}\r\naccept: text/event-stream\r\nauthorization: Bearer wrong-0123456789abcdef\r\n`,
    );
    t.match(stream, /^HTTP\/1.1 401[\s\S]*access-control-allow-origin: https:\/\/dash.example/);
    const abort = new AbortController();
    const response = await fetch(`http://127.0.0.1:${daemon.port}/v1/events`, {
      headers: { authorization: `Bearer ${daemon.token}`, accept: 'text/event-stream', origin: DASH },
      signal: abort.signal,
    });
    t.equal(response.headers.get('access-control-allow-origin'), DASH, 'of a stream');
    t.equal(response.headers.get('x-content-type-options'), 'nosniff');
    t.equal(response.headers.get('cache-control'), 'no-store');
    abort.abort();
    const own = await daemon.get('/v1/node', from(`http://127.0.0.1:${daemon.port}`));
    t.notOk(own.headers['access-control-allow-origin'], 'a same-origin page needs none');
  },
);

t.test('a preflight of a listed origin needs no token, and its answer is always the same', async (t) => {
  const ask = (path: string, origin: string, more: Record<string, string> = {}): Promise<Response> =>
    daemon.request('OPTIONS', path, {
      tcp: true,
      headers: { origin, 'access-control-request-method': 'POST', authorization: '', ...more },
    });
  const answers = [];
  for (const path of ['/v1/handles', '/v1/handles/h_x/waitid', '/nope', '/docs']) {
    const { status, headers, text } = await ask(path, DASH);
    t.match(headers, {
      'access-control-allow-origin': DASH,
      'access-control-allow-methods': /GET.*POST.*PATCH.*DELETE/,
      'access-control-allow-headers': /Authorization.*Content-Type.*Idempotency-Key.*Prefer/,
      vary: 'Origin',
    });
    t.notOk(headers['access-control-allow-credentials']);
    const { date: _, 'x-request-id': _id, ...same } = headers;
    answers.push({ status, text, same });
  }
  t.match(answers[0], { status: 204, text: '' });
  for (const answer of answers) t.same(answer, answers[0]);
  t.match((await ask('/v1/handles', 'https://evil.example')).body, { status: 403, errno: 'EPERM' });
  t.equal((await ask('/v1/handles', DASH, { host: 'evil.example' })).status, 421);
  const own = { 'access-control-request-method': 'POST', authorization: `Bearer ${daemon.token}` };
  t.equal(
    (await ask('/v1/handles', `http://127.0.0.1:${daemon.port}`, own)).status,
    405,
    'a same-origin browser sends no preflight',
  );
  const noPreflight = { tcp: true, headers: { origin: DASH } };
  t.equal(
    (await daemon.request('OPTIONS', '/v1/handles', noPreflight)).status,
    405,
    'OPTIONS without the headers is no preflight',
  );
});

t.test('no origin is listed by default', async (t) => {
  const closed = await Daemon.start(t);
  const { status, headers } = await closed.request('OPTIONS', '/v1/handles', {
    tcp: true,
    headers: { origin: DASH, 'access-control-request-method': 'POST' },
  });
  t.equal(status, 403);
  t.notOk(Object.keys(headers).some((name) => name.startsWith('access-control')));
  t.equal(await closed.stop(), 0);
});

t.test('--allowed-origin refuses a value that is not an origin', async (t) => {
  const { readConfig } = await import('../src/config/config.ts');
  const read = (text: string): string[] =>
    readConfig(['--listen', 'tcp:127.0.0.1:0', '--allowed-origin', text], {}).allowedOrigins;
  t.same(read('https://A.example:443'), ['https://a.example']);
  t.same(read('app://local'), ['app://local']);
  for (const text of [
    '*',
    'null',
    'dash.example',
    'https://a.example/',
    'https://a.example/path',
    'https://u@a.example',
  ])
    t.throws(() => read(text), /--allowed-origin.*must be an origin such as https:\/\/dash.example/, text);
});

t.test('pages have headers against framing and foreign scripts', async (t) => {
  for (const path of ['/docs', '/docs/static/index.css']) {
    const { status, headers } = await daemon.get(path);
    t.equal(status, 200);
    t.match(headers, {
      'content-security-policy': /default-src 'none'.*script-src 'self';.*frame-ancestors 'none'/,
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
      'cross-origin-opener-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
    });
  }
  const { text } = await daemon.get('/docs/');
  t.notMatch(text, /<script(?![^>]*\ssrc=)|\son\w+=|style=/, 'they contain nothing that the policy blocks');
});

t.test('a browser without a token can read the documentation and its assets', async (t) => {
  const asBrowser = { tcp: true, headers: { authorization: '' } };
  const { text } = await daemon.get('/docs/', asBrowser);
  const loaded = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => new URL(path!, 'http://x/docs/'));
  t.ok(loaded.length >= 3);
  for (const { pathname } of loaded) t.equal((await daemon.get(pathname, asBrowser)).status, 200, pathname);
  for (const path of ['/docs', '/docs/json', '/openapi.json'])
    t.equal((await daemon.get(path, asBrowser)).status, 200, path);
  t.match((await daemon.get('/openapi.json', asBrowser)).body.components, {
    securitySchemes: { bearer: { scheme: 'bearer' } },
  });
  t.equal((await daemon.get('/v1/node', asBrowser)).status, 401, 'other routes require a token');
});

t.test('unusual Host headers, several Host headers, and a different host in the URL', async (t) => {
  const served = ['localhost', 'LOCALHOST:1', 'localhost:', '[::1]', '[::1]:7411', '127.0.0.1:1', 'Waitd.Example'];
  for (const host of served) t.match(await raw(`GET /livez HTTP/1.1\r\nhost: ${host}\r\n`), /^HTTP\/1.1 200/, host);
  const cases: [number, string[]][] = [
    [421, ['localhost.', 'waitd.example.', 'evil.example', '0x7f000001', '2130706433', '127.1', '127.0.0.1.evil']],
    [
      400,
      [
        '',
        'user@localhost',
        'localhost:80@evil',
        'localhost, evil',
        '[fe80::1%25eth0]',
        '::1',
        '[::1',
        'localhost:x',
        'local host',
        'http://localhost',
      ],
    ],
  ];
  for (const [status, hosts] of cases)
    for (const host of hosts)
      t.match(
        await raw(`GET /livez HTTP/1.1\r\nhost: ${host}\r\n`),
        new RegExp(`^HTTP/1.1 ${status}[\\s\\S]*"errno"`),
        host,
      );
  t.match(await raw('GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n'), /^HTTP\/1.1 400/, 'two of them');
  t.match(await raw('GET /livez HTTP/1.1\r\nhost: evil\r\nhost: localhost\r\n'), /^HTTP\/1.1 400/);
  t.match(await raw('GET http://LOCALHOST/livez HTTP/1.1\r\nhost: localhost\r\n'), /^HTTP\/1.1 200/, 'for a proxy');
  for (const target of [
    'http://evil.example/livez',
    'http://localhost@evil/livez',
    'ws://evil/v1/events',
    'http://localhost:1/livez',
  ])
    t.match(
      await raw(`GET ${target} HTTP/1.1\r\nhost: localhost\r\n`),
      /^HTTP\/1.1 400[\s\S]*"errno":"EPROTO"/,
      target,
    );
  const token = `authorization: Bearer ${daemon.token}\r\n`;
  t.match(await raw(`GET /v1/node HTTP/1.1\r\nhost: localhost\r\n${token}`), /^HTTP\/1.1 200/);
  t.match(await raw(`GET /v1/node HTTP/1.1\r\nhost: localhost\r\n${token}${token}`), /^HTTP\/1.1 401/, 'two tokens');
  t.equal(await daemon.stop(), 0);
});
