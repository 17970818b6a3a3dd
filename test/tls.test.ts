import { spawn as spawnChild, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { type RequestOptions, request } from 'node:https';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import t from 'tap';
import { WebSocket } from 'ws';
import { certificateName } from '../src/clients/certificate.ts';
import { Attached } from './support/attached.ts';
import { Authority, type Pair } from './support/certificates.ts';
import { Daemon, eventually, Socket, temporaryDirectory } from './support/harness.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');
const directory = temporaryDirectory(t);
const ours = new Authority(directory, 'ours');
const theirs = new Authority(temporaryDirectory(t), 'theirs');
const local = ['DNS.1=localhost', 'IP.1=127.0.0.1'];
const server = ours.issue('server', { names: local, usage: 'serverAuth' });
const flags = ({ cert, key }: Pair): string[] => ['--tls-cert', cert, '--tls-key', key];
const withClients = [...flags(server), '--tls-client-ca', ours.cert];
const ca = readFileSync(ours.cert);
const shown = ({ cert, key }: Pair) => ({ cert: readFileSync(cert), key: readFileSync(key) });

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: the tests state the expected values
  body: any;
}

/** Sends one request over TLS, on its own connection. */
function ask(daemon: Daemon, path: string, options: RequestOptions = {}, body?: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const sent = request(
    { host: '127.0.0.1', port: daemon.port, servername: 'localhost', path, ca, agent: false, ...options },
    async (response) => {
      let text = '';
      for await (const chunk of response.setEncoding('utf8')) text += chunk;
      resolve({ status: response.statusCode!, body: text === '' ? null : JSON.parse(text) });
    },
  );
  sent.on('error', reject);
  sent.end(body);
  return promise;
}

const bearer = (daemon: Daemon) => ({ authorization: `Bearer ${daemon.token}` });
const json = { 'content-type': 'application/json' };
const spawn = (daemon: Daemon, options: RequestOptions): Promise<Answer> =>
  ask(
    daemon,
    '/v1/handles',
    { method: 'POST', ...options, headers: { ...json, ...options.headers } },
    '{"spawn":{"argv":["sleep","100"]}}',
  );

function handshake(daemon: Daemon, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const socket = connect({ host: '127.0.0.1', port: daemon.port, ca, ...options }, () => resolve(socket));
  socket.on('error', reject);
  return promise;
}

t.test('with a certificate TCP accepts only TLS, 1.2 or newer; the Unix socket stays plain', async (t) => {
  const daemon = await Daemon.start(t, { args: flags(server) });
  t.match(
    daemon.entries.find(({ address }) => address?.startsWith('tcp:')),
    { tls: true },
  );
  t.notMatch(
    daemon.entries.find(({ address }) => address?.startsWith('unix:')),
    { tls: true },
  );
  t.match(await ask(daemon, '/livez'), { status: 200 });
  t.match(await ask(daemon, '/v1/handles'), { status: 401, body: { errno: 'EACCES' } });
  const headers = bearer(daemon);
  t.match(await ask(daemon, '/v1/handles', { headers }), { status: 200, body: { handles: [] } });
  t.match(await ask(daemon, '/livez', { headers: { host: 'evil.example' } }), { status: 421 });
  t.equal((await daemon.get('/livez')).status, 200, 'on the Unix socket');

  const plain = new Promise((resolve) => {
    httpRequest({ host: '127.0.0.1', port: daemon.port, path: '/livez' }, (response) => resolve(response.statusCode))
      .on('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
      .end();
  });
  t.match(await plain, /ECONNRESET|HPE_INVALID_CONSTANT/, 'plain HTTP is not answered');
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const socket = await handshake(daemon, { maxVersion, ALPNProtocols: ['h2', 'http/1.1'] });
    t.equal(socket.getProtocol(), maxVersion);
    t.equal(socket.alpnProtocol, 'http/1.1');
    socket.destroy();
  }
  const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
  await t.rejects(handshake(daemon, old), { code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' });
  t.equal(await daemon.stop(), 0);
});

t.test('invalid files stop the start, and a rehearsal reports them', async (t) => {
  const other = ours.issue('other', { names: local, usage: 'serverAuth' });
  const open = ours.issue('open', { names: local, usage: 'serverAuth' });
  chmodSync(open.key, 0o640);
  const nonsense = join(directory, 'nonsense.pem');
  writeFileSync(nonsense, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', { mode: 0o600 });
  const empty = join(directory, 'empty.pem');
  writeFileSync(empty, '', { mode: 0o600 });
  const cases: [string[], number, RegExp][] = [
    [['--tls-cert', server.cert], 2, /--tls-cert needs --tls-key/],
    [['--tls-key', server.key], 2, /--tls-key needs --tls-cert/],
    [['--tls-client-ca', ours.cert], 2, /--tls-client-ca needs --tls-cert and --tls-key/],
    [flags({ cert: '/nonexistent', key: server.key }), 1, /\/nonexistent cannot be read: ENOENT/],
    [flags({ cert: server.cert, key: '/nonexistent' }), 1, /\/nonexistent cannot be read: ENOENT/],
    [flags({ cert: empty, key: server.key }), 1, /empty.pem has no certificate/],
    [flags({ cert: nonsense, key: server.key }), 1, /nonsense.pem: its certificate 1 is not well-formed/],
    [flags({ cert: server.cert, key: empty }), 1, /empty.pem has no usable key/],
    [flags({ cert: server.cert, key: other.key }), 1, /other-key.pem is not the key of .*server.pem/],
    [flags(open), 1, /open-key.pem has mode 0640, so other users can read its key: chmod 0600/],
    [[...flags(server), '--tls-client-ca', empty], 1, /empty.pem has no certificate/],
  ];
  const endpoints = [
    '--listen',
    `unix:${directory}/s`,
    '--listen',
    'tcp:127.0.0.1:0',
    '--state-dir',
    `${directory}/state`,
  ];
  for (const [args, status, says] of cases) {
    const command = [MAIN, 'serve', ...endpoints, ...args, '--check'];
    const checked = spawnSync(process.execPath, command, { encoding: 'utf8' });
    t.equal(checked.status, status, says.source);
    t.match(checked.stderr.trim(), says);
    t.notMatch(checked.stderr.trim(), /\n/, 'one sentence');
  }
  const daemon = Daemon.begin(t, { args: flags(open) });
  t.equal(await daemon.exited, 1);
  const good = spawnSync(process.execPath, [MAIN, 'serve', ...endpoints, ...withClients, '--check'], {
    encoding: 'utf8',
  });
  t.equal(good.stdout, 'waitd: check passed\n');
});

t.test('a certificate identifies its client: by the first DNS, URI or email name', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const cases: [string, string[]][] = [
    ['cert:ci.example', ['DNS.1=ci.example', 'DNS.2=admin']],
    ['cert:spiffe://cluster/ns/a', ['IP.1=10.0.0.1', 'URI.1=spiffe://cluster/ns/a', 'DNS.1=admin']],
    ['cert:alice@example.org', ['email.1=alice@example.org', 'URI.1=spiffe://admin']],
    ['cert:x,DNS:admin', ['DNS.1=x\\,DNS:admin', 'DNS.2=admin']],
    ['cert:http://x/"\\,URI:admin', ['URI.1=http://x/\\"\\\\\\,URI:admin']],
  ];
  for (const [index, [client, names]] of cases.entries())
    t.match(
      await spawn(daemon, shown(ours.issue(`client${index}`, { names }))),
      { status: 201, body: { client } },
      client,
    );
  const nameless: [string, string[]][] = [
    ['no name', []],
    ['an address, which does not count as a name', ['IP.1=10.0.0.1']],
    ['with a space', ['DNS.1=x\\, DNS:admin', 'DNS.2=admin']],
    ['with a space, in a URI', ['URI.1=http://x\\, DNS:admin']],
  ];
  for (const [index, [what, names]] of nameless.entries()) {
    const pair = shown(ours.issue(`nameless${index}`, { names }));
    const { status, body } = await ask(daemon, '/v1/handles', pair);
    t.equal(status, 401, what);
    t.match(body.detail, /subjectAltName/);
    t.equal((await ask(daemon, '/v1/handles', { ...pair, headers: bearer(daemon) })).status, 200, 'a token suffices');
  }
  const known = shown(ours.issue('known', { names: ['DNS.1=known'] }));
  t.match(await spawn(daemon, { ...known, headers: bearer(daemon) }), {
    body: { client: `uid:${process.getuid!()}` },
  });
  const wrong = { authorization: 'Bearer wrong-0123456789abcdef' };
  t.equal((await ask(daemon, '/v1/handles', { ...known, headers: wrong })).status, 401, 'no fallback');
  t.equal((await ask(daemon, '/v1/handles')).status, 401, 'without a certificate a token is needed');
  const evil = { ...known, headers: { host: 'evil.example' } };
  t.equal((await ask(daemon, '/v1/handles', evil)).status, 421, 'the Host is still checked');
  t.equal(await daemon.stop(), 0);
});

t.test('on a terminal the daemon prints how to call it over TLS', async (t) => {
  const directory = temporaryDirectory(t);
  const endpoints = `--listen tcp:127.0.0.1:0 --state-dir ${directory}/state`;
  const command = `${process.execPath} ${MAIN} serve ${endpoints} ${flags(server).join(' ')}`;
  const child = spawnChild('script', ['-qec', command, '/dev/null'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  for await (const data of child.stdout) {
    text += data;
    if (text.includes('Ctrl-C')) break;
  }
  t.match(text, /curl -H .* --cacert \S+server.pem https:\/\/127.0.0.1:\d+\/v1\/handles/);
  child.kill('SIGTERM');
});

t.test('the TLS command in the how-to gets an answer', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const pair = ours.issue('client', { names: ['DNS.1=readme'] });
  for (const [from, to] of [
    [ours.cert, 'ca.pem'],
    [pair.cert, 'client.pem'],
    [pair.key, 'client-key.pem'],
  ] as const)
    if (from !== join(directory, to)) copyFileSync(from, join(directory, to));
  const howTo = readFileSync(join(import.meta.dirname, '../docs/how-to/tls.md'), 'utf8');
  const [command = ''] = /^curl --cacert.*$/m.exec(howTo) ?? [];
  const { stdout } = spawnSync('sh', ['-c', command.replace('7411', String(daemon.port))], {
    cwd: directory,
    encoding: 'utf8',
  });
  t.same(JSON.parse(stdout), { handles: [], next: null, head: 0 });
  t.equal(await daemon.stop(), 0);
});

t.test('a certificate that does not verify ends the connection before any request', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const cases: [string, Pair, string][] = [
    ['of another authority', theirs.issue('stranger', { names: ['DNS.1=admin'] }), 'UNABLE_TO_'],
    ['expired', ours.issue('old', { names: ['DNS.1=admin'], expired: true }), 'CERT_HAS_EXPIRED'],
    ['of a server', server, 'INVALID_PURPOSE'],
  ];
  for (const [what, pair, reason] of cases)
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const from = daemon.entries.length;
      const headers = bearer(daemon);
      await t.rejects(
        ask(daemon, '/livez', { ...shown(pair), maxVersion, headers }),
        { code: /ECONNRESET|EPIPE/ },
        what,
      );
      t.match((await daemon.logged('client certificate refused', from)).reason, reason);
    }
  t.equal(await daemon.stop(), 0);
});

t.test('a resumed session has the same rights as before, and no more', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const good = shown(ours.issue('again', { names: ['DNS.1=again'] }));
  const bad = shown(theirs.issue('again', { names: ['DNS.1=again'] }));
  /** Returns a session's answer and its ticket. */
  const talk = (options: ConnectionOptions): Promise<{ text: string; ticket: Buffer | undefined; reused: boolean }> => {
    const { promise, resolve } = Promise.withResolvers<{ text: string; ticket: Buffer | undefined; reused: boolean }>();
    let text = '';
    let ticket: Buffer | undefined;
    let reused = false;
    const socket = connect({ host: '127.0.0.1', port: daemon.port, ca, servername: 'localhost', ...options }, () => {
      reused = socket.isSessionReused();
      socket.write('GET /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
    });
    socket.on('session', (session) => {
      ticket = session;
    });
    socket.on('data', (data) => {
      text += data;
    });
    socket.on('error', () => {}); // close follows an error
    socket.on('close', () => resolve({ text, ticket, reused }));
    return promise;
  };
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const)
    for (const [pair, says] of [
      [good, /^HTTP\/1.1 200/],
      [bad, /^$/],
    ] as const) {
      const first = await talk({ ...pair, maxVersion });
      t.match(first.text, says);
      const { ticket: session } = first;
      if (session === undefined) {
        t.equal(pair, bad, 'only a refused connection may end without a session');
        continue;
      }
      t.match((await talk({ ...pair, maxVersion, session })).text, says, 'with the same certificate');
      const bare = await talk({ maxVersion, session });
      if (pair === bad) t.notMatch(bare.text, /^HTTP\/1.1 200/);
      else t.match(bare, { reused: true, text: says }, 'the session contains the certificate');
    }
  t.equal(await daemon.stop(), 0);
});

t.test('the names of a certificate are read exactly as encoded, or not at all', async (t) => {
  t.equal(certificateName(undefined), null);
  t.equal(certificateName(''), null);
  t.equal(certificateName('othername:<unsupported>, DirName:"CN=a\\u002c DNS:b", DNS:c'), 'c');
  t.equal(certificateName('DNS:"a\\u002cb"'), 'a,b');
  t.equal(certificateName('DNS:a b'), null);
  t.equal(certificateName('DNS:, URI:b'), null);
  t.equal(certificateName(`DNS:${'a'.repeat(256)}`), null);
  for (const text of ['DNS:a"b, DNS:c', 'DNS:"a', 'DNS:"a" b, DNS:c', 'a, DNS:b', 'DNS:a,DNS:b', 'DNS:"\\x"'])
    t.equal(certificateName(text), null, text);
});

t.test('sockets, parked waits and abrupt disconnects work the same over TLS', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const pair = shown(ours.issue('watcher', { names: ['URI.1=spiffe://watcher'] }));
  const { body: handle } = await spawn(daemon, pair);
  const url = `wss://localhost:${daemon.port}/v1/events?handle=${handle.id}`;
  const socket = new Socket(new WebSocket(url, ['waitd.v1'], { ca, ...pair }));
  await socket.first(({ event }) => event === 'opened');
  const parked = async (count: number): Promise<void> =>
    eventually(async () => (await daemon.get('/metrics')).text.includes(`waitd_parked_calls ${count}\n`));
  const leaver = await handshake(daemon, pair);
  leaver.write(`POST /v1/handles/${handle.id}/waitid HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n`);
  await parked(1);
  leaver.destroy();
  await parked(0);
  const waiting = ask(daemon, `/v1/handles/${handle.id}/waitid`, { method: 'POST', ...pair });
  await parked(1);
  const killing = { method: 'POST', ...pair, headers: json };
  t.match(await ask(daemon, `/v1/handles/${handle.id}/signal`, killing, '{"signal":"SIGKILL"}'), { status: 204 });
  t.match(await waiting, { status: 200, body: { outcome: { signal: 'SIGKILL' } } });
  t.match(await socket.first(({ event }) => event === 'exited'), { outcome: { signal: 'SIGKILL' } });
  t.equal(await daemon.stop(), 0);
  t.match(await socket.closed, { code: 1001 });
});

t.test('an attached socket carries both ways at once over TLS', async (t) => {
  const daemon = await Daemon.start(t, { args: withClients });
  const pair = shown(ours.issue('typist', { names: ['URI.1=spiffe://typist'] }));
  const wanted = { spawn: { argv: ['cat'], stdin: 'pipe', stdout: 'capture' } };
  const made = await ask(daemon, '/v1/handles', { method: 'POST', ...pair, headers: json }, JSON.stringify(wanted));
  const tls = { ca, ...pair };
  const socket = new Attached(daemon, made.body.id, { tls });
  const bytes = randomBytes(8 * 2 ** 20);
  for (let at = 0; at < bytes.length; at += 100_000) await socket.write(bytes.subarray(at, at + 100_000));
  socket.send({ type: 'eof' });
  await socket.end();
  t.ok(Buffer.concat(socket.received.stdout).equals(bytes));
  t.equal(await daemon.stop(), 0);
});

t.test('an upgrade reads the certificates again; invalid ones refuse it', async (t) => {
  const files = ours.issue('renewed', { names: local, usage: 'serverAuth' });
  const daemon = await Daemon.start(t, { args: flags(files) });
  const { port } = daemon;
  const { id } = await daemon.spawn(['sleep', '100']);
  const served = async (): Promise<string> => {
    const socket = await handshake(daemon);
    const { serialNumber } = socket.getPeerX509Certificate()!;
    socket.destroy();
    return serialNumber;
  };
  const before = await served();
  writeFileSync(files.key, readFileSync(server.key));
  daemon.child.kill('SIGHUP');
  t.match((await daemon.logged('upgrade refused; this image keeps running')).reason, /is not the key of/);
  t.equal(await served(), before);
  const successor = ours.issue('successor', { names: local, usage: 'serverAuth' });
  for (const file of ['cert', 'key'] as const) writeFileSync(files[file], readFileSync(successor[file]));
  await daemon.upgrade();
  t.not(await served(), before);
  t.equal(daemon.port, port);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' });
  t.equal(await daemon.stop(), 0);
});

t.test('an unfinished handshake delays no other client and no stop', async (t) => {
  const daemon = await Daemon.start(t, { args: flags(server) });
  const silent = connectPlain(daemon.port, '127.0.0.1');
  silent.on('error', () => {});
  const nonsense = connectPlain(daemon.port, '127.0.0.1', () =>
    nonsense.write('\x16\x03\x01\xff\xff nonsense'.repeat(9)),
  );
  nonsense.on('error', () => {});
  nonsense.resume();
  await new Promise((resolve) => nonsense.once('close', resolve));
  const half = connectPlain(daemon.port, '127.0.0.1', () => half.end('\x16\x03\x01'));
  half.on('error', () => {});
  half.resume();
  await new Promise((resolve) => half.once('close', resolve));
  t.equal((await ask(daemon, '/livez')).status, 200);
  t.equal(await daemon.stop(), 0);
});
