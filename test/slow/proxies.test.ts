import { once } from 'node:events';
import { chmodSync, readFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Authority } from '../support/certificates.ts';
import { Daemon, eventually, Gate, temporaryDirectory } from '../support/harness.ts';
import { apache, caddy, haproxy, type Kind, nginx } from '../support/proxies.ts';
import { blocks, type Change, replaced, rowOf } from '../support/proxies-document.ts';
import { missing, RunningProxy } from '../support/running-proxy.ts';
import { NAME, Through } from '../support/through-proxy.ts';

/** Longer than the second to which the tests set each proxy's default timeout. */
const QUIET_MS = 3000;

/** The differences that the document states. */
interface Traits {
  kind: Kind;
  /** The change after which the proxy cuts off a parked wait. */
  impatient: Change;
  /** Whether the proxy notices at once that a client has left. */
  seesLeave: boolean;
  /** The change after which it no longer notices that. */
  deaf?: Change;
  /** Whether it checks the daemon's health by itself. */
  checks: boolean;
}

const all: Traits[] = [
  { kind: nginx, impatient: ['proxy_read_timeout 24h;', ''], seesLeave: true, checks: false },
  {
    kind: haproxy,
    impatient: ['timeout server 24h', ''],
    seesLeave: true,
    deaf: ['option abortonclose', ''],
    checks: true,
  },
  {
    kind: caddy,
    impatient: ['keepalive 60s', 'response_header_timeout 1s'],
    seesLeave: true,
    deaf: ['health_uri /livez', 'flush_interval -1'],
    checks: true,
  },
  { kind: apache, impatient: [' timeout=86400', ''], seesLeave: false, checks: false },
];

const authority = new Authority(temporaryDirectory(t), 'authority');
const certificate = authority.issue(NAME, { names: [`DNS.1=${NAME}`], usage: 'serverAuth' });
const ca = readFileSync(authority.cert, 'utf8');

/** Starts the daemon by the document's command, with other paths and the group of this proxy. */
async function daemonFor(t: Test, kind: Kind, directory: string): Promise<Daemon> {
  const [command = ''] = blocks('The daemon', 'sh');
  const [, ...args] = replaced(command, [
    ['waitd serve --listen unix:/run/waitd/waitd.sock', 'waitd'],
    ['/run/waitd/proxy.sock', join(directory, 'proxy.sock')],
    ['www-data', kind.user],
  ])
    .trim()
    .split(' ');
  return Daemon.start(t, { directory, args: [...args, '--allowed-host', NAME] });
}

const metric = async (daemon: Daemon, name: string): Promise<number> =>
  Number(new RegExp(`^waitd_${name} (\\d+)$`, 'm').exec((await daemon.get('/metrics')).text)?.[1]);

for (const { kind, impatient, seesLeave, deaf, checks } of all) {
  const skip = missing(kind) ?? false;
  t.test(kind.name, { skip }, async (t) => {
    const directory = temporaryDirectory(t);
    chmodSync(directory, 0o711);
    const daemon = await daemonFor(t, kind, directory);
    const { token } = daemon;
    const behind = { socket: join(directory, 'proxy.sock'), certificate };
    const { site } = await RunningProxy.start(t, kind, behind);
    const ways = [
      ['HTTP', new Through({ site, token })],
      ['TLS', new Through({ site, token, ca })],
    ] as const;
    const [[, plain], [, secure]] = ways;
    const statusOf = (what: string): number =>
      Number(/\d+$/.exec(rowOf('What each needs', what)[all.findIndex((one) => one.kind === kind)]!)?.[0]);
    const lasting = await daemon.spawn(['sleep', '1000']);
    const again = await daemon.spawn(['sleep', '1000'], { nonblocking: true });

    for (const [name, proxied] of ways) {
      t.test(`answers pass unchanged except for the prefix, by ${name}`, async (t) => {
        const node = await proxied.ask('GET', '/v1/node');
        t.match(node, { status: 200, body: { pid: daemon.pid } });
        const spawned = await proxied.ask('POST', '/v1/handles', { body: { spawn: { argv: ['sh', '-c', 'exit 7'] } } });
        t.match(spawned, { status: 201, headers: { location: `${proxied.prefix}/v1/handles/${spawned.body.id}` } });
        const outcome = { reason: 'exited', exitCode: 7 };
        t.match((await proxied.ask('POST', `/v1/handles/${spawned.body.id}/waitid`)).body, { outcome });

        const answer = await proxied.ask('POST', `/v1/handles/${again.id}/waitid`, {
          headers: { 'x-request-id': 'of-the-client' },
        });
        t.match(answer, { status: 409, body: { errno: 'EAGAIN' } });
        const since = answer.body.retry.events.split('=').at(-1);
        t.match(answer.headers, {
          'content-type': 'application/problem+json',
          'retry-after': '1',
          link: `<${proxied.prefix}/v1/events?handle=${again.id}&since=${since}>; rel="monitor"`,
          'cache-control': 'no-store',
          'x-request-id': answer.body.instance,
        });
        t.match(answer.body.instance, /^[\w@-]{20,40}$/, 'the id is one that the proxy logs');
        t.equal((await proxied.ask('DELETE', `/v1/handles/${spawned.body.id}`)).status, 204);
      });

      t.test(`waits and streams survive silence and are not buffered, by ${name}`, async (t) => {
        const gate = new Gate(t);
        const argv = ['sh', '-c', `echo one; read -r line < ${gate.path}; echo two; exit 3`];
        const { id } = await proxied.spawn(argv, {}, { stdout: 'capture' });
        const wait = proxied.open('POST', `/v1/handles/${id}/waitid`);
        const headers = { accept: 'text/event-stream' };
        const events = await proxied.open('GET', '/v1/events', { headers });
        const output = await proxied.open('GET', `/v1/handles/${id}/stdout?follow=1`);
        const socket = proxied.socket();
        await socket.first(({ type }) => type === 'hello');
        await events.until('"hello"');
        await output.until('one\n');
        await setTimeout(QUIET_MS);
        gate.open();
        const isEnd = ({ event, handle }: { event: string; handle: string }) => event === 'exited' && handle === id;
        t.match(await socket.first(isEnd), { outcome: { exitCode: 3 } });
        await events.until('"exited"');
        await output.until('two\n');
        t.match(await (await wait).whole(), { status: 200, body: { outcome: { exitCode: 3 } } });
        events.leave();
        output.leave();
        socket.close();
      });
    }

    t.test('clients may use HTTP/2', async (t) => {
      const session = connectHttp2(`https://127.0.0.1:${site.https}`, { servername: NAME, ca });
      session.on('error', () => {});
      t.teardown(() => session.destroy());
      const begin = (path: string, more: object = {}) => {
        const stream = session.request({
          ':path': `/jobs${path}`,
          ':authority': NAME,
          ...secure.authorization,
          ...more,
        });
        const seen = { stream, text: '' };
        stream.setEncoding('latin1').on('data', (data: string) => {
          seen.text += data;
        });
        return seen;
      };
      const node = begin('/v1/node');
      await once(node.stream, 'end');
      t.equal(JSON.parse(node.text).pid, daemon.pid);
      const events = begin('/v1/events', { accept: 'text/event-stream' });
      await eventually(() => events.text.includes('"hello"'), 'hello is received');
      const { id } = await daemon.spawn(['true']);
      await eventually(() => events.text.includes(id), 'the event is received');
      events.stream.close();
      t.equal(session.remoteSettings.enableConnectProtocol, kind === haproxy, 'WebSockets over HTTP/2 (RFC 8441)');
      if (kind !== haproxy) return;
      const websocket = { ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https' };
      const socket = begin('/v1/events', { ...websocket, 'sec-websocket-version': '13' });
      await eventually(() => socket.text.includes('"hello"'), 'hello is received');
      socket.stream.close();
    });

    t.test('a browser opens the documentation below the prefix', async (t) => {
      const headers = { 'sec-fetch-site': 'none', 'sec-fetch-dest': 'document' };
      const page = await new Through({ site, ca }).ask('GET', '/docs/', { headers });
      t.equal(page.status, 200);
      for (const [, link] of page.text.matchAll(/(?:href|src)="([^"]+)"/g)) t.match(link, /^\.\//);
    });

    t.test('without the directive the default timeout cuts off a wait', async (t) => {
      const { site } = await RunningProxy.start(t, kind, behind, [impatient]);
      const cut = await new Through({ site, token }).ask('POST', `/v1/handles/${lasting.id}/waitid`);
      t.equal(cut.status, statusOf('wait beyond that timeout'));
    });

    t.test('a wait and a stream end when their client leaves, as the document states', async (t) => {
      const are = (name: string, count: number) =>
        eventually(async () => (await metric(daemon, name)) === count, `${name} is ${count}`);
      /** Parks a wait and disconnects. */
      const leave = async (through: Through, stays: boolean): Promise<void> => {
        await are('parked_calls', 0);
        const leaving = new AbortController();
        const body = { timeoutMs: stays ? QUIET_MS : 1_000_000 };
        const wait = through.ask('POST', `/v1/handles/${lasting.id}/waitid`, { body, signal: leaving.signal });
        await are('parked_calls', 1);
        leaving.abort();
        await t.rejects(wait);
        if (stays) {
          await setTimeout(1000);
          t.equal(await metric(daemon, 'parked_calls'), 1, 'it stays until its timeoutMs');
        }
        await are('parked_calls', 0);
      };
      for (const [, proxied] of ways) await leave(proxied, !seesLeave);
      if (deaf !== undefined) {
        const { site } = await RunningProxy.start(t, kind, behind, [deaf]);
        await leave(new Through({ site, token }), true);
      }

      // Apache httpd notices once it writes to the client.
      const gone = () =>
        eventually(async () => {
          if (!seesLeave) await daemon.spawn(['true']);
          return (await metric(daemon, 'subscribers')) === 0;
        }, 'no subscriber is left');
      await gone();
      const socket = secure.socket();
      await socket.first(({ type }) => type === 'hello');
      t.equal(await metric(daemon, 'subscribers'), 1);
      socket.close();
      await are('subscribers', 0);
      const events = await secure.open('GET', '/v1/events', { headers: { accept: 'text/event-stream' } });
      await events.until('"hello"');
      t.equal(await metric(daemon, 'subscribers'), 1);
      events.leave();
      await gone();
    });

    t.test('only the token names the client, and only pages of the listed origin may call', async (t) => {
      const stranger = new Through({ site });
      for (const path of ['/livez', '/readyz']) t.equal((await stranger.ask('GET', path)).status, 200, path);
      const forwarded = { 'x-forwarded-for': '127.0.0.1', forwarded: 'for=127.0.0.1' };
      t.match(await stranger.ask('GET', '/v1/handles', { headers: forwarded }), {
        status: 401,
        headers: { 'www-authenticate': /^Bearer/ },
        body: { errno: 'EACCES' },
      });
      const as = (origin: string) => secure.ask('GET', '/v1/handles', { headers: { origin } });
      t.match(await as(`https://${NAME}`), {
        status: 200,
        headers: { 'access-control-allow-origin': `https://${NAME}` },
      });
      t.match(await as('https://evil.example'), { status: 403, body: { errno: 'EPERM' } });
      const page = secure.socket({ origin: `https://${NAME}` }, secure.protocols);
      await page.first(({ type }) => type === 'hello');
      page.close();
      const evil = secure.ws({ origin: 'https://evil.example' }, secure.protocols).on('error', () => {});
      t.equal(
        await new Promise((resolve) => evil.once('unexpected-response', (_, { statusCode }) => resolve(statusCode))),
        403,
      );
    });

    t.test('long URLs and bodies reach the daemon, which refuses those over its limits', async (t) => {
      const path = `/v1/events?${`handle=${again.id}&`.repeat(1000)}limit=1`;
      t.equal((await plain.ask('GET', path)).status, 200, 'a URL of a thousand handles');
      const spawn = (bytes: number) => ({ spawn: { argv: ['true'], stdin: { text: 'x'.repeat(bytes) } } });
      t.equal((await plain.ask('POST', '/v1/handles', { body: spawn(3 * 2 ** 20) })).status, 201, 'a long body');
      // Caddy may reset the connection when it answers before it has read the body.
      const refused = () => plain.ask('POST', '/v1/handles', { body: spawn(4 * 2 ** 20) }).catch(() => null);
      await eventually(async () => (await refused())?.body?.errno === 'E2BIG', 'the daemon refuses it');
    });

    t.test('an upgrade answers what is parked, and later requests succeed', async (t) => {
      const wait = plain.ask('POST', `/v1/handles/${lasting.id}/waitid`);
      await eventually(async () => (await metric(daemon, 'parked_calls')) === 1, 'it is parked');
      const socket = plain.socket();
      await socket.first(({ type }) => type === 'hello');
      await daemon.upgrade();
      t.match(await wait, { status: 503, headers: { 'retry-after': '0' }, body: { errno: 'ESHUTDOWN' } });
      t.match(await socket.closed, { code: 1012 });
      t.equal((await plain.ask('GET', '/v1/node')).status, 200, 'the next image answers');
    });

    t.test('changed as the document says, the configuration serves the root and connects over TCP', async (t) => {
      const [unix = '', tcp = ''] = rowOf('By TCP', kind.name).map((cell) => cell.replaceAll('`', ''));
      const changes: Change[] = [
        ['/jobs/', '/'],
        [unix.replace('/run/waitd/proxy.sock', behind.socket), tcp],
        ['127.0.0.1:7411', `127.0.0.1:${daemon.port}`],
      ];
      const { site } = await RunningProxy.start(t, kind, behind, changes);
      const proxied = new Through({ site, token, ca, prefix: '' });
      const spawned = await proxied.ask('POST', '/v1/handles', { body: { spawn: { argv: ['true'] } } });
      t.match(spawned, { status: 201, headers: { location: `/v1/handles/${spawned.body.id}` } });
      t.match(await proxied.ask('POST', `/v1/handles/${again.id}/waitid`), {
        status: 409,
        headers: { link: /^<\/v1\/events/ },
      });
      const socket = proxied.socket();
      await socket.first(({ type }) => type === 'hello');
      socket.close();
    });

    t.test(
      'the health check takes a hanging daemon out of service',
      { skip: checks ? false : 'this proxy has no health check' },
      async (t) => {
        const status = async (): Promise<number> => (await plain.ask('GET', '/livez')).status;
        daemon.child.kill('SIGSTOP');
        t.teardown(() => daemon.child.kill('SIGCONT'));
        // Requests that the proxy forwarded before its check failed hang until the daemon continues.
        await eventually(
          async () => (await Promise.race([status().catch(() => 0), setTimeout(500, 0)])) === 503,
          'it is taken out of service',
        );
        daemon.child.kill('SIGCONT');
        await eventually(async () => (await status()) === 200, 'it is back in service');
      },
    );

    t.test('clients get the documented status while the daemon is stopped', async (t) => {
      const away = statusOf('daemon is stopped');
      await daemon.stop();
      const status = async (): Promise<number> => (await plain.ask('GET', '/livez')).status;
      await eventually(async () => (await status()) === away, `clients get ${away}`);
      await daemonFor(t, kind, directory);
      if (checks) await eventually(async () => (await status()) === 200, 'it is back in service');
      else t.equal(await status(), 200, 'it is back at once');
      t.equal((await secure.ask('GET', '/v1/node')).status, 200);
    });
  });
}
