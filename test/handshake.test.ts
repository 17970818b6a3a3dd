import t from 'tap';
import { Daemon } from './support/harness.ts';
import { head, tcp, UPGRADE, unix, type Wire } from './support/wire.ts';

const daemon = await Daemon.start(t);
const answerTo = (request: string): Promise<string> => tcp(daemon).finish(request).closed;
const without = (...names: string[]): string[] => UPGRADE.filter((line) => !names.includes(line.split(':')[0]!));

t.test('an upgrade that a proxy stripped is answered with the missing headers', async (t) => {
  const cases: [missing: RegExp, headers: string[]][] = [
    [/lacks Upgrade: websocket and Connection: Upgrade\./, without('connection', 'upgrade')],
    [/lacks Upgrade: websocket\./, without('upgrade')],
    [/lacks Connection: Upgrade\./, ['connection: close', ...without('connection')]],
    [/lacks Upgrade: websocket\./, ['upgrade: h2c', ...without('upgrade')]],
  ];
  for (const [missing, headers] of cases) {
    const answer = await answerTo(head(daemon, 'GET /v1/events', ...headers));
    t.match(answer, /^HTTP\/1.1 426[\s\S]*^upgrade: websocket\r$/im);
    t.match(answer, missing);
  }
  const old = head(daemon, 'GET /v1/events', ...UPGRADE).replace('HTTP/1.1', 'HTTP/1.0');
  t.match(await answerTo(old), /^HTTP\/1.1 426[\s\S]*lacks HTTP\/1.1/);
  t.match(await answerTo(head(daemon, 'GET /v1/events')), /^HTTP\/1.1 200[\s\S]*"events"/, 'a page needs no upgrade');
  const absolute = unix(daemon);
  absolute.socket.write(head(daemon, 'GET http://localhost/v1/events', ...UPGRADE));
  await absolute.until(/^HTTP\/1.1 101[\s\S]*hello/);
  absolute.socket.destroy();
});

t.test('an invalid list of subprotocols is refused with a problem', async (t) => {
  for (const offered of [
    'waitd.v1, waitd.v1',
    'waitd.v1, a b',
    'waitd.v1, "x"',
    'a, waitd.v1, a',
    '',
    'waitd.v1,',
    ',waitd.v1',
  ]) {
    const answer = await answerTo(head(daemon, 'GET /v1/events', ...UPGRADE, `sec-websocket-protocol: ${offered}`));
    t.match(answer, /^HTTP\/1.1 400[\s\S]*problem\+json[\s\S]*"EINVAL"/, offered);
  }
  const twice = ['sec-websocket-protocol: waitd.v1', 'sec-websocket-protocol: waitd.v1'];
  t.match(await answerTo(head(daemon, 'GET /v1/events', ...UPGRADE, ...twice)), /^HTTP\/1.1 400[\s\S]*"EINVAL"/);
});

/** Returns a masked ping frame with some text (RFC 6455 5.2); its mask is zero. */
const ping = (text: string): Buffer => Buffer.from([0x89, 0x80 | text.length, 0, 0, 0, 0, ...Buffer.from(text)]);

/** The start of its answer. */
const PONG = '\x8a';

async function opened(): Promise<Wire> {
  const wire = tcp(daemon);
  wire.socket.write(head(daemon, 'GET /v1/events', ...UPGRADE));
  await wire.until(/hello.*}$/s);
  wire.text = '';
  return wire;
}

t.test('a burst of pings is answered', async (t) => {
  const wire = await opened();
  const texts = Array.from({ length: 100 }, (_, at) => `ping ${at}.`);
  wire.socket.write(Buffer.concat(texts.map(ping)));
  await wire.until(/ping 99\.$/);
  t.equal(wire.text, texts.map((text) => `${PONG}${String.fromCharCode(text.length)}${text}`).join(''));
  wire.socket.write(ping('one more'));
  await wire.until(/one more$/);
  wire.socket.destroy();
});

t.test('of pings whose pongs are not read, the latest is answered', async (t) => {
  const wire = await opened();
  wire.socket.pause();
  const many = Buffer.concat(new Array<Buffer>(10_000).fill(ping('x'.repeat(125))));
  for (let time = 0; time < 10; time += 1) await new Promise((resolve) => wire.socket.write(many, resolve));
  wire.socket.write(ping('the last'));
  wire.socket.resume();
  await wire.until(/the last$/);
  t.ok(wire.text.length < 10 * many.length, 'some pings get no pong');
  wire.socket.destroy();
});

t.test('HTTP/1.0 is answered, with or without a Host', async (t) => {
  const old = (path: string, ...headers: string[]): string =>
    [`GET ${path} HTTP/1.0`, `authorization: Bearer ${daemon.token}`, ...headers, '', ''].join('\r\n');
  t.match(await answerTo('GET /livez HTTP/1.0\r\n\r\n'), /^HTTP\/1.1 200[\s\S]*"ok"/);
  t.match(await answerTo('HEAD /readyz HTTP/1.0\r\n\r\n'), /^HTTP\/1.1 200[\s\S]*\r\n\r\n$/);
  t.match(await answerTo(old('/v1/handles')), /^HTTP\/1.1 200[\s\S]*"handles"/);
  t.match(await answerTo(old('http://localhost/v1/handles')), /^HTTP\/1.1 200/);
  t.match(await answerTo(old('http://evil.example/v1/handles')), /^HTTP\/1.1 421/);
  t.match(await answerTo(old('/v1/handles', 'host: evil.example')), /^HTTP\/1.1 421/);
  t.match(await answerTo('GET /livez HTTP/1.1\r\n\r\n'), /^HTTP\/1.1 400[\s\S]*Host/, 'HTTP/1.1 requires a Host');
  const { id } = await daemon.spawn(['echo', 'hello'], {}, { stdout: 'capture' });
  await daemon.waitid(id);
  const followed = await answerTo(old(`/v1/handles/${id}/stdout?follow=1`));
  t.match(followed, /\r\n\r\nhello\n$/, 'a stream ends with its connection');
});

t.test('an invalid URL is refused, and nothing in it is replaced', async (t) => {
  for (const target of [
    '/v1/handles?label=a=%ff',
    '/v1/handles?label=%',
    '/v1/events?handle=%C3%28',
    '/v1/handles/%ff',
  ])
    t.match((await daemon.get(target)).body, { status: 400, errno: 'EPROTO' }, target);
  const bytes = head(daemon, 'GET /v1/handles?label=a=caf\u00e9', 'connection: close');
  const raw = tcp(daemon);
  raw.socket.write(Buffer.from(bytes, 'latin1'));
  t.match(await raw.closed, /^HTTP\/1.1 400[\s\S]*"EPROTO"/);
  t.equal((await daemon.get('/v1/handles?label=a=caf%C3%A9+%26')).status, 200);
});

t.test('a thousand handles fit into a query', async (t) => {
  const { id } = await daemon.spawn(['true']);
  const query = new Array<string>(1000).fill(`handle=${id}`).join('&');
  t.match(await daemon.get(`/v1/events?${query}`), { status: 200, body: { events: [{ event: 'opened' }] } });
});

t.test('two Idempotency-Key headers are refused', async (t) => {
  const body = JSON.stringify({ spawn: { argv: ['true'] } });
  const headers = ['content-type: application/json', `content-length: ${body.length}`, 'connection: close'];
  const keys = ['idempotency-key: a', 'idempotency-key: b'];
  t.match(
    await answerTo(head(daemon, 'POST /v1/handles', ...headers, ...keys) + body),
    /^HTTP\/1.1 400[\s\S]*"EINVAL"/,
  );
});

t.teardown(() => daemon.stop());
