import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import t, { type Test } from 'tap';
import { Authority } from './support/certificates.ts';
import { Daemon, eventually, temporaryDirectory, withShortLimits } from './support/harness.ts';
import { head, tcp, UPGRADE, unix, Wire } from './support/wire.ts';

const authority = new Authority(temporaryDirectory(t), 'authority');
const server = authority.issue('server', { names: ['DNS.1=localhost'], usage: 'serverAuth' });
const tls = ['--tls-cert', server.cert, '--tls-key', server.key];
const ca = readFileSync(authority.cert);

/** Starts a daemon with time limits reduced to a twentieth. */
const quick = (test: Test, args: string[] = []): Promise<Daemon> =>
  Daemon.start(test, { args, env: withShortLimits('http/limits.ts') });

const secure = (daemon: Daemon): Wire =>
  new Wire(connectTls({ host: '127.0.0.1', port: daemon.port, servername: 'localhost', ca }));

const TIMED_OUT = /^HTTP\/1.1 408[\s\S]*"errno":"EPROTO"/;

t.test('the limits of a request, to the byte', async (t) => {
  const daemon = await Daemon.start(t);
  const { limits } = (await daemon.get('/v1/node')).body;
  t.match(limits, {
    bodyBytes: 4 * 2 ** 20,
    headerBytes: 64 * 2 ** 10,
    urlBytes: 48 * 2 ** 10,
    frameBytes: 128 * 2 ** 10,
    headersTimeoutMs: 10_000,
    requestTimeoutMs: 60_000,
    keepAliveTimeoutMs: 75_000,
    unauthenticatedConnections: Math.floor(limits.descriptors / 4),
  });
  const json = 'content-type: application/json';
  const announced = tcp(daemon);
  announced.socket.write(head(daemon, 'POST /v1/handles', json, `content-length: ${limits.bodyBytes + 1}`));
  t.match(await announced.closed, /^HTTP\/1.1 413[\s\S]*"errno":"E2BIG"/, 'a body over the limit is not read');
  const chunked = tcp(daemon);
  chunked.socket.write(head(daemon, 'POST /v1/handles', json, 'transfer-encoding: chunked'));
  const chunk = Buffer.alloc(2 ** 16, ' ');
  const framed = Buffer.concat([Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n')]);
  const send = (): boolean => chunked.socket.writable && chunked.socket.write(framed, () => send());
  send();
  t.match(await chunked.closed, /^HTTP\/1.1 413/, 'nor one without a length');
  const body = JSON.stringify('x'.repeat(limits.bodyBytes - 2));
  t.equal((await daemon.request('POST', '/v1/handles', { body })).status, 400, 'the longest allowed body is read');

  const path = `/v1/handles?label=a=${'x'.repeat(limits.urlBytes - '/v1/handles?label=a='.length)}`;
  t.not((await daemon.get(path)).status, 414);
  t.match((await daemon.get(`${path}x`)).body, { status: 414, errno: 'EPROTO' });
  const stuffed = tcp(daemon);
  stuffed.socket.write(head(daemon, 'GET /livez', `x: ${'x'.repeat(limits.headerBytes)}`));
  t.match(await stuffed.closed, /^HTTP\/1.1 431[\s\S]*65536 bytes/);

  const frames = daemon.ws();
  await frames.first(({ type }) => type === 'hello');
  frames.send('x'.repeat(limits.frameBytes));
  t.match(await frames.first(({ type }) => type === 'error'), { errno: 'EINVAL' }, 'the longest frame is read');
  frames.send('x'.repeat(limits.frameBytes + 1));
  t.match(await frames.closed, { code: 1009 });
  const deflating = tcp(daemon);
  deflating.socket.write(head(daemon, 'GET /v1/events', ...UPGRADE, 'sec-websocket-extensions: permessage-deflate'));
  await deflating.until(/hello/);
  t.notMatch(deflating.text, /sec-websocket-extensions/i, 'frames are not compressed');
  deflating.socket.destroy();
  t.equal(await daemon.stop(), 0);
});

t.test('a client that sends slowly, or sends nothing, is disconnected', async (t) => {
  const daemon = await quick(t);
  const asking = 'GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ';
  t.match(await tcp(daemon).drip(asking).closed, TIMED_OUT, 'slow headers');
  t.match(await unix(daemon).drip(asking).closed, TIMED_OUT);
  t.match(await tcp(daemon).closed, TIMED_OUT, 'no bytes');
  t.match(await unix(daemon).closed, TIMED_OUT);
  const posting = head(daemon, 'POST /v1/handles', 'content-type: application/json', 'content-length: 100000');
  t.match(await tcp(daemon).drip(posting).closed, TIMED_OUT, 'a slow body');
  const again = tcp(daemon);
  again.socket.write(head(daemon, 'GET /livez'));
  await again.until(/"ok"/);
  again.drip(asking);
  t.match(await again.closed, /"ok"[\s\S]*HTTP\/1.1 408/, 'the second request like the first');
  t.equal(await daemon.stop(), 0);
});

t.test('the same over TLS, where the handshake has a time limit too', async (t) => {
  const daemon = await quick(t, tls);
  const hello = '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03';
  t.notMatch(await tcp(daemon).closed, /HTTP/, 'no handshake');
  t.notMatch(await tcp(daemon).drip(hello).closed, /HTTP/, 'a slow handshake');
  t.match(await secure(daemon).closed, TIMED_OUT, 'a handshake and nothing more');
  t.match(await secure(daemon).drip('GET /livez HTTP/1.1\r\nx: ').closed, TIMED_OUT);
  t.equal(await daemon.stop(), 0);
});

t.test('waiting has no time limit: a parked call, a stream, a socket that answers pings', async (t) => {
  const daemon = await quick(t, tls);
  const { id } = await daemon.spawn(['sleep', '1000']);
  const parked = secure(daemon);
  parked.socket.write(head(daemon, `POST /v1/handles/${id}/waitid`, 'content-length: 0'));
  const stream = secure(daemon);
  stream.socket.write(head(daemon, 'GET /v1/events', 'accept: text/event-stream'));
  await stream.until(/hello/);
  const answering = daemon.ws();
  await answering.first(({ type }) => type === 'hello');
  let pings = 0;
  answering.ws.on('ping', () => {
    pings += 1;
  });

  // Each of these started later, and one of the limits ends it.
  const silent = unix(daemon);
  silent.socket.write(head(daemon, 'GET /v1/events', ...UPGRADE));
  const idle = unix(daemon);
  idle.socket.write(head(daemon, 'GET /livez'));
  const slow = unix(daemon).drip(
    head(daemon, 'POST /v1/handles', 'content-length: 100000', 'content-type: application/json'),
  );
  const last = (await silent.closed).slice(-2);
  t.equal(last, '\x89\x00', 'a socket is dropped that does not answer a ping (RFC 6455 5.5.2)');
  t.match(await slow.closed, TIMED_OUT);
  t.match(await idle.closed, /^HTTP\/1.1 200/, 'an idle connection');

  t.ok(pings > 0);
  t.match((await daemon.get('/metrics')).text, /^waitd_parked_calls 1$/m);
  await daemon.signal(id, 'SIGKILL');
  await parked.until(/^HTTP\/1.1 200[\s\S]*SIGKILL/);
  await stream.until(/"exited"/);
  await answering.first(({ event }) => event === 'exited');
  answering.close();
  for (const { socket } of [parked, stream]) socket.destroy();
  t.equal(await daemon.stop(), 0);
});

/** Reports whether TCP keep-alive runs at the daemon's end of a connection (proc(5), timer 2 of tcp_diag). */
function isKeptAlive({ port }: Daemon, { socket }: Wire): boolean {
  const hex = (number: number): string => number.toString(16).toUpperCase().padStart(4, '0');
  const ends = new RegExp(`:${hex(port)} [0-9A-F]+:${hex(socket.localPort!)} 01 \\S+ (\\d\\d):`);
  return ends.exec(readFileSync('/proc/net/tcp', 'utf8'))?.[1] === '02';
}

t.test('TCP keep-alive finds clients that vanished', async (t) => {
  for (const [args, open] of [
    [[], tcp],
    [tls, secure],
  ] as const) {
    const daemon = await Daemon.start(t, { args: [...args] });
    const wire = open(daemon);
    wire.socket.write(head(daemon, 'GET /livez'));
    await wire.until(/"ok"/);
    await eventually(() => isKeptAlive(daemon, wire)); // an unacknowledged segment has the retransmission timer instead
    wire.socket.destroy();
    t.equal(await daemon.stop(), 0);
  }
});

t.test('unauthenticated connections take a quarter at most, and the oldest is closed first', async (t) => {
  for (const [args, open] of [
    [[], tcp],
    [tls, secure],
  ] as const) {
    const daemon = await Daemon.start(t, { args: [...args], prefix: ['prlimit', '--nofile=256:256'] });
    const most = (await daemon.get('/v1/node')).body.limits.unauthenticatedConnections;
    t.equal(most, 64);
    const asked = async (wire: Wire, request: string, pattern: RegExp): Promise<Wire> => {
      wire.text = '';
      wire.socket.write(request);
      await wire.until(pattern);
      return wire;
    };
    const known = await asked(open(daemon), head(daemon, 'GET /v1/node'), /^HTTP\/1.1 200[\s\S]*"limits"/);
    const refused = 'GET /v1/node HTTP/1.1\r\nhost: localhost\r\n\r\n';
    const first = await asked(open(daemon), refused, /^HTTP\/1.1 401/);
    const probe = 'GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n';
    const second = await asked(open(daemon), probe, /"ok"/);
    const silent: Wire[] = [];
    const connectOne = async (): Promise<void> => {
      const wire = tcp(daemon);
      await new Promise((resolve) => wire.socket.once('connect', resolve));
      silent.push(wire);
    };
    while (silent.length < most - 2) await connectOne();
    await asked(first, probe, /"ok"/);
    await connectOne();
    await first.closed;
    await asked(second, probe, /"ok"/);
    await connectOne();
    await second.closed;
    const comer = await asked(open(daemon), head(daemon, 'GET /v1/node'), /^HTTP\/1.1 200/);
    await silent[0]!.closed;
    t.notOk(silent[1]!.socket.destroyed);
    await connectOne();
    t.equal((await daemon.get('/v1/node')).status, 200, 'on the Unix socket');
    await asked(known, head(daemon, 'GET /v1/node'), /^HTTP\/1.1 200/);
    await asked(comer, head(daemon, 'GET /v1/node'), /^HTTP\/1.1 200/);
    for (const { socket } of [known, comer, ...silent]) socket.destroy();
    t.equal(await daemon.stop(), 0);
  }
});

t.test('the daemon does no periodic checks without clients', async (t) => {
  const daemon = await quick(t);
  await daemon.get('/livez');
  daemon.disconnect();
  await eventually(async () => {
    const before = wakes(daemon.pid);
    // The time of ten checks. The absence of an effect has no signal to wait for.
    await setTimeout(500);
    return wakes(daemon.pid) - before <= 2;
  });
});

/** Returns how often a process's main thread was woken after a wait. */
function wakes(pid: number): number {
  return Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}
