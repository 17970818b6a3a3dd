import { readFileSync } from 'node:fs';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { Authority } from './support/certificates.ts';
import { Daemon, eventually, temporaryDirectory } from './support/harness.ts';
import { head, tcp, unix, Wire } from './support/wire.ts';

const daemon = await Daemon.start(t);
const json = (body: string): string[] => ['content-type: application/json', `content-length: ${body.length}`];
const parked = async (): Promise<number> =>
  Number(/^waitd_parked_calls (\d+)$/m.exec((await daemon.get('/metrics')).text)?.[1]);

for (const [name, open] of [
  ['TCP', tcp],
  ['a Unix socket', unix],
] as const) {
  t.test(`a client that shuts down its sending side gets the whole answer, by ${name}`, async (t) => {
    const body = JSON.stringify({ spawn: { argv: ['true'] } });
    const spawned = open(daemon).finish(head(daemon, 'POST /v1/handles', ...json(body)) + body);
    t.match(await spawned.closed, /^HTTP\/1.1 201[\s\S]*"argv":\["true"\]/);
    const two = open(daemon).finish(head(daemon, 'GET /livez') + head(daemon, 'GET /v1/node'));
    t.match(await two.closed, /^HTTP\/1.1 200[\s\S]*"ok"[\s\S]*HTTP\/1.1 200[\s\S]*"bootId"/, 'for every request');
  });

  t.test(`also an answer that it has to wait for, by ${name}`, async (t) => {
    const { id } = await daemon.spawn(['sh', '-c', 'read line; echo done'], {}, { stdout: 'capture' });
    t.match((await daemon.waitid(id)).body, { outcome: { exitCode: 0 } });
    const held = await daemon.spawn(['sh', '-c', 'echo first; kill -STOP $$; echo last'], {}, { stdout: 'capture' });
    await daemon.waitid(held.id, { options: ['WSTOPPED'] });
    const wait = open(daemon).finish(head(daemon, `POST /v1/handles/${held.id}/waitid`, 'content-length: 0'));
    const follower = open(daemon).finish(head(daemon, `GET /v1/handles/${held.id}/stdout?follow=1`));
    const stream = open(daemon).finish(head(daemon, `GET /v1/events?handle=${held.id}`, 'accept: text/event-stream'));
    await follower.until(/first/);
    await stream.until(/"stopped"/);
    await eventually(async () => (await parked()) === 1);
    await daemon.signal(held.id, 'SIGCONT');
    t.match(await wait.closed, /^HTTP\/1.1 200[\s\S]*"exitCode":0/);
    t.match(await follower.closed, /^HTTP\/1.1 200[\s\S]*first[\s\S]*last/);
    await stream.until(/"exited"/);
    stream.socket.destroy();
  });

  t.test(`a client that disconnects is noticed, also after a shutdown of its sending side, by ${name}`, async (t) => {
    const { id } = await daemon.spawn(['sleep', '1000']);
    const request = head(daemon, `POST /v1/handles/${id}/waitid`, 'content-length: 0');
    const left = open(daemon);
    left.socket.write(request);
    await eventually(async () => (await parked()) === 1);
    left.socket.destroy();
    await eventually(async () => (await parked()) === 0);
    const half = open(daemon).finish(request);
    await eventually(async () => (await parked()) === 1);
    half.socket.destroy();
    await eventually(async () => (await parked()) === 0);
    await daemon.signal(id, 'SIGKILL');
    t.match((await daemon.waitid(id)).body, { outcome: { signal: 'SIGKILL' } }, 'neither has collected the status');
  });
}

t.test('a stream whose reader has left is ended', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdout: 'capture' });
  const before = daemon.descriptors;
  const wires = [tcp, unix].flatMap((open) => [
    open(daemon).finish(head(daemon, `GET /v1/handles/${id}/stdout?follow=1`)),
    open(daemon).finish(head(daemon, 'GET /v1/events', 'accept: text/event-stream')),
  ]);
  for (const wire of wires) await wire.until(/^HTTP\/1.1 200/);
  t.ok(daemon.descriptors > before);
  for (const { socket } of wires) socket.destroy();
  await eventually(() => daemon.descriptors <= before);
  await daemon.signal(id, 'SIGKILL');
});

t.test('the same over TLS', async (t) => {
  const authority = new Authority(temporaryDirectory(t), 'authority');
  const server = authority.issue('server', { names: ['DNS.1=localhost'], usage: 'serverAuth' });
  const secure = await Daemon.start(t, { args: ['--tls-cert', server.cert, '--tls-key', server.key] });
  const ca = readFileSync(authority.cert);
  const open = (): Wire => new Wire(connectTls({ host: '127.0.0.1', port: secure.port, servername: 'localhost', ca }));
  const { id } = await secure.spawn(['sleep', '1000']);
  const waiting = open();
  waiting.socket.end(head(secure, `POST /v1/handles/${id}/waitid`, 'content-length: 0'));
  const calls = async (): Promise<string> => (await secure.get('/metrics')).text;
  await eventually(async () => /^waitd_parked_calls 1$/m.test(await calls()));
  await secure.signal(id, 'SIGKILL');
  await waiting.until(/^HTTP\/1.1 200[\s\S]*SIGKILL/);
  await waiting.closed;
  t.equal(await secure.stop(), 0);
});

t.teardown(() => daemon.stop());
