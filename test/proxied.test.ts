import { join } from 'node:path';
import t from 'tap';
import { WebSocket } from 'ws';
import { readConfig } from '../src/config/config.ts';
import { Daemon, type Response, temporaryDirectory } from './support/harness.ts';

const DASH = 'https://dash.example';
const spawn = { spawn: { argv: ['true'] } };
const refused = { status: 403, body: { errno: 'EPERM' } };

t.test(
  'a browser’s request that a proxy forwards to the Unix socket is refused unless its origin is listed',
  async (t) => {
    const daemon = await Daemon.start(t, { args: ['--allowed-origin', DASH] });
    const { token } = daemon;
    const post = (headers: Record<string, string>): Promise<Response> => daemon.post('/v1/handles', spawn, { headers });
    const get = (headers: Record<string, string>): Promise<Response> => daemon.get('/v1/handles', { headers });
    for (const headers of [
      { origin: 'https://proxy.example', host: 'proxy.example' },
      { origin: 'http://proxy.example', host: 'proxy.example' },
      { origin: 'http://localhost', host: 'localhost' },
      { origin: 'http://localhost' },
      { origin: 'null' },
      { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', host: 'proxy.example' },
      { 'sec-fetch-site': 'none', 'sec-fetch-dest': 'document' },
      { referer: 'http://proxy.example/', host: 'proxy.example' },
    ]) {
      t.match(await post(headers), refused, JSON.stringify(headers));
      t.match(await get(headers), refused, JSON.stringify(headers));
    }
    const stream = await get({ origin: 'http://localhost', accept: 'text/event-stream' });
    t.match(stream, refused);
    const ws = new WebSocket(`ws+unix:${daemon.socket}:/v1/events`, ['waitd.v1'], { origin: 'http://localhost' });
    ws.on('error', () => {});
    t.equal(
      await new Promise((resolve) => ws.once('unexpected-response', (_, { statusCode }) => resolve(statusCode))),
      403,
    );
    t.equal((await daemon.get('/v1/handles')).body.handles.length, 0, 'the request had no effect');

    t.equal((await post({ origin: DASH })).status, 201, 'a listed page');
    t.equal(
      (await get({ 'sec-fetch-site': 'same-origin', host: 'dash.example' })).status,
      200,
      'which reads from its own origin',
    );
    t.equal((await get({ 'sec-fetch-mode': 'cors' })).status, 200, 'as fetch() outside browsers sends it');
    const authorization = `Bearer ${token}`;
    t.equal((await get({ referer: 'https://x.example/', authorization })).status, 200, 'a token identifies the client');
    t.match(await post({ origin: 'http://localhost', authorization }), refused, 'but not for an unlisted page');
    t.equal(await daemon.stop(), 0);
  },
);

t.test('a Unix socket with ,token ignores the peer’s uid', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'asks.sock');
  const daemon = await Daemon.start(t, { directory, args: ['--listen', `unix:${path},token`] });
  const check = async (): Promise<void> => {
    t.match(await daemon.get('/v1/handles', { socket: path }), {
      status: 401,
      headers: { 'www-authenticate': /^Bearer/ },
    });
    t.match(await daemon.post('/v1/handles', spawn, { socket: path }), { status: 401, body: { errno: 'EACCES' } });
    const headers = { authorization: `Bearer ${daemon.token}` };
    t.equal((await daemon.get('/v1/handles', { headers, socket: path })).status, 200);
    t.equal((await daemon.get('/livez', { socket: path })).status, 200, 'probes need none');
    t.equal((await daemon.get('/v1/handles')).status, 200, 'the other socket is unchanged');
  };
  await check();
  await daemon.upgrade();
  await check();
  t.equal(await daemon.stop(), 0);
});

t.test('--listen takes ,token for Unix sockets and passed ones', async (t) => {
  const read = (text: string): unknown => readConfig(['--listen', text], {}).listen;
  t.same(read('unix:/run/a.sock,token'), [{ unix: '/run/a.sock', token: true }]);
  t.same(read('fd:web,token'), [{ passed: 'web', token: true }]);
  t.throws(() => read('tcp:127.0.0.1:1,token'), /must be unix:/);
  const listed = { WAITD_LISTEN: 'unix:/run/a.sock,token,tcp:127.0.0.1:0,fd:web,token,unix:/run/b.sock' };
  t.same(readConfig([], listed).listen, [
    { unix: '/run/a.sock', token: true },
    { host: '127.0.0.1', port: 0 },
    { passed: 'web', token: true },
    { unix: '/run/b.sock' },
  ]);
});
