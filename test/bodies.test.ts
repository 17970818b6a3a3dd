import { connect } from 'node:net';
import t from 'tap';
import { Daemon, type Response } from './support/harness.ts';
import { head, tcp, unix, type Wire } from './support/wire.ts';

const daemon = await Daemon.start(t);
const { bodyBytes } = (await daemon.get('/v1/node')).body.limits;
const JSON_TYPE = 'content-type: application/json';
const sleep = JSON.stringify({ spawn: { argv: ['sleep', '1000'] } });
const raw = async (wire: Wire, text: string | Buffer): Promise<string> => {
  wire.socket.write(text);
  return wire.closed;
};

/** Sends a whole request before it reads, as most clients do, and returns the answer. */
function sendThenRead(request: string, body: Buffer): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(daemon.port, '127.0.0.1');
  let text = '';
  socket.pause();
  socket.on('error', reject);
  socket.setEncoding('latin1').on('data', (data: string) => {
    text += data;
  });
  socket.on('end', () => resolve(text));
  socket.pause();
  socket.write(request);
  socket.write(body, () => socket.resume());
  return promise;
}

t.test('a refused body is read on until its client reads the answer', async (t) => {
  const body = Buffer.alloc(3 * bodyBytes, ' ');
  const length = `content-length: ${body.length}`;
  const wrong = head(daemon, 'POST /v1/handles', JSON_TYPE, length).replace(daemon.token, 'wrong-token-0123456789');
  const chunked = Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from('\r\n0\r\n\r\n')]);
  const cases: [string, string, Buffer][] = [
    ['413', head(daemon, 'POST /v1/handles', JSON_TYPE, length), body],
    ['413', head(daemon, 'POST /v1/handles', JSON_TYPE, 'transfer-encoding: chunked'), chunked],
    ['401', wrong, body],
    ['403', head(daemon, 'POST /v1/handles', JSON_TYPE, length, 'origin: http://evil.example'), body],
    ['404', head(daemon, 'POST /nope', JSON_TYPE, length), body],
    ['404', head(daemon, 'POST /v1/handles/h_x/signal/', JSON_TYPE, 'transfer-encoding: chunked'), chunked],
    ['405', head(daemon, 'PUT /v1/handles', JSON_TYPE, length), body],
    ['413', head(daemon, 'POST /v1/handles', 'content-type: text/xml', length), body],
    ['421', head(daemon, 'POST /v1/handles', JSON_TYPE, length).replace('localhost', 'evil.example'), body],
    ['431', head(daemon, 'POST /v1/handles', `x: ${'x'.repeat(70_000)}`, JSON_TYPE, length), body],
    ['400', `NONSENSE\r\n\r\n`, body],
  ];
  for (const [status, request, sent] of cases)
    for (let time = 0; time < 5; time += 1) {
      const answer = await sendThenRead(request, sent);
      t.match(answer, new RegExp(`^HTTP/1.1 ${status}[\\s\\S]*"errno"`), request.slice(0, 30));
      t.match(answer, /^connection: close\r$/im);
      t.match(answer, /^date: \w{3}, /im);
    }
});

t.test('twelve concurrent clients can all read why their bodies are refused', async (t) => {
  const body = Buffer.alloc(2 * bodyBytes);
  const request = head(daemon, 'POST /v1/handles', JSON_TYPE, `content-length: ${body.length}`);
  const all = await Promise.all(Array.from({ length: 12 }, () => sendThenRead(request, body)));
  for (const answer of all) t.match(answer, /^HTTP\/1.1 413/);
});

t.test('no bytes after a refused body are parsed as a request', async (t) => {
  const body = `${' '.repeat(1000)}`;
  const refused = head(daemon, 'POST /v1/handles', JSON_TYPE, `content-length: ${bodyBytes + 1}`) + body;
  const before = (await daemon.get('/v1/handles')).body.handles.length;
  const spawn = head(daemon, 'POST /v1/handles', JSON_TYPE, `content-length: ${sleep.length}`) + sleep;
  const wire = tcp(daemon);
  wire.socket.write(refused);
  await wire.until(/^HTTP\/1.1 413/);
  wire.socket.end(' '.repeat(bodyBytes + 1 - body.length) + spawn);
  t.notMatch((await wire.closed).slice(1), /HTTP\/1.1/);
  t.equal((await daemon.get('/v1/handles')).body.handles.length, before);
});

t.test('a client that expects 100-continue is refused before it sends its body, or told to continue', async (t) => {
  const expect = 'expect: 100-continue';
  const refusals: [string, string[]][] = [
    ['413', ['POST /v1/handles', JSON_TYPE, `content-length: ${bodyBytes + 1}`]],
    ['415', ['POST /v1/handles', 'content-type: text/xml', 'content-length: 10']],
    ['415', ['POST /v1/handles', JSON_TYPE, 'content-encoding: gzip', 'content-length: 10']],
    ['404', ['POST /nope', JSON_TYPE, 'content-length: 10']],
    ['405', ['PUT /v1/handles', JSON_TYPE, 'content-length: 10']],
    ['400', ['POST /v1/handles', JSON_TYPE, 'content-length: 10', 'upgrade: websocket']],
  ];
  for (const [status, [request = '', ...headers]] of refusals) {
    const answer = await raw(tcp(daemon), head(daemon, request, ...headers, expect));
    t.match(answer, new RegExp(`^HTTP/1.1 ${status}[\\s\\S]*^connection: close\\r$`, 'im'));
  }
  const wire = unix(daemon);
  wire.socket.write(head(daemon, 'POST /v1/handles', JSON_TYPE, `content-length: ${sleep.length}`, expect));
  await wire.until(/^HTTP\/1.1 100 Continue\r\n\r\n$/);
  wire.socket.write(sleep);
  await wire.until(/HTTP\/1.1 201[\s\S]*"sleep"/);
  wire.socket.destroy();
});

t.test('an empty body counts as no body, with any Content-Type', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000']);
  const types = ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x', 'x', '/', ''];
  for (const type of [...types, 'application/json']) {
    const empty = ['content-length: 0', `content-type: ${type}`];
    const wait = `POST /v1/handles/${id}/waitid`;
    for (const headers of [empty, ['transfer-encoding: chunked', `content-type: ${type || 'text/plain'}`]]) {
      const end = headers === empty ? '' : '0\r\n\r\n';
      const options = ['prefer: wait=0, respond-async', 'connection: close', ...headers];
      t.match(await raw(tcp(daemon), head(daemon, wait, ...options) + end), /^HTTP\/1.1 202/, type);
      t.match(
        await raw(tcp(daemon), head(daemon, 'POST /v1/handles', 'connection: close', ...headers) + end),
        /^HTTP\/1.1 400[\s\S]*"EINVAL"/,
        'a required body is missing',
      );
    }
  }
  const form = { body: 'a=b', headers: { 'content-type': 'application/x-www-form-urlencoded' } };
  t.match((await daemon.request('POST', `/v1/handles/${id}/waitid`, form)).body, { status: 415, errno: 'EPROTO' });
  const ended = await daemon.request('POST', `/v1/handles/${id}/terminate`, { ...form, body: '' });
  t.equal(ended.status, 200);
});

t.test('a body is never ignored, with any method', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000']);
  const ask = (method: string, path: string, body: unknown): Promise<Response> =>
    daemon.request(method, path, { body: typeof body === 'string' ? body : JSON.stringify(body) });
  for (const [method, path] of [
    ['DELETE', `/v1/handles/${id}`],
    ['GET', `/v1/handles/${id}`],
    ['GET', '/v1/handles'],
    ['GET', '/v1/events'],
    ['GET', '/livez'],
    ['GET', '/v1/watches'],
    ['DELETE', '/v1/watches/w_x'],
  ] as const) {
    const { body } = await ask(method, path, { signal: 'SIGKILL' });
    t.match(body, { status: 400, errno: 'EINVAL', errors: [{ path: '/signal' }] }, `${method} ${path}`);
    for (const other of [[], 'null', '"x"', '{"a":', '{"__proto__":{}}'])
      t.match((await ask(method, path, other)).body, { status: 400, errno: 'EINVAL' });
  }
  t.equal((await daemon.get(`/v1/handles/${id}`, { body: {} })).status, 200, 'an empty object is ignored');
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.equal((await ask('DELETE', `/v1/handles/${id}?signal=SIGKILL`, '')).status, 204);
});

t.test('bodies in another encoding are refused', async (t) => {
  const post = (bytes: Buffer, ...headers: string[]): Promise<string> => {
    const all = [...headers, `content-length: ${bytes.length}`, 'connection: close'];
    const request = Buffer.from(head(daemon, 'POST /v1/handles', ...all));
    return raw(tcp(daemon), Buffer.concat([request, bytes]));
  };
  const latin = Buffer.from('{"spawn":{"argv":["caf\u00e9"]}}', 'latin1');
  t.match(await post(latin, JSON_TYPE), /^HTTP\/1.1 400[\s\S]*"EINVAL"[\s\S]*UTF-8|UTF-8[\s\S]*"EINVAL"/);
  const surrogate = String.raw`{"spawn":{"argv":["cat"],"stdin":{"text":"\ud800"}}}`;
  t.match(await post(Buffer.from(surrogate), JSON_TYPE), /^HTTP\/1.1 400[\s\S]*well-formed/);
  const utf16 = Buffer.from('{"spawn":{"argv":["true"]}}', 'utf16le');
  t.match(await post(utf16, `${JSON_TYPE}; charset=utf-16le`), /^HTTP\/1.1 415/);
  const marked = Buffer.from('\ufeff{"spawn":{"argv":["true"]}}');
  t.match(await post(marked, `${JSON_TYPE}; charset="UTF-8"`), /^HTTP\/1.1 201/);
  const gzip = await post(Buffer.from('x'), JSON_TYPE, 'content-encoding: gzip');
  t.match(gzip, /^HTTP\/1.1 415[\s\S]*accept-encoding: identity/i);
  t.match(await post(Buffer.from('{}'), JSON_TYPE, 'content-encoding: identity'), /^HTTP\/1.1 400[\s\S]*exactly one/);
  const coded = head(daemon, 'POST /v1/handles', JSON_TYPE, 'transfer-encoding: gzip, chunked', 'connection: close');
  t.match(await raw(tcp(daemon), `${coded}0\r\n\r\n`), /^HTTP\/1.1 400[\s\S]*"EPROTO"/);
});

t.test('a chunked body includes its trailers, and is incomplete where it breaks off', async (t) => {
  const request = head(daemon, 'POST /v1/handles', JSON_TYPE, 'transfer-encoding: chunked', 'connection: close');
  const half = 20;
  const chunks = [sleep.slice(0, half), sleep.slice(half)].map(
    (part) => `${part.length.toString(16)};a=b\r\n${part}\r\n`,
  );
  const answer = await raw(tcp(daemon), `${request}${chunks.join('')}0\r\nx-checksum: 1\r\n\r\n`);
  t.match(answer, /^HTTP\/1.1 201/);
  t.match(await tcp(daemon).finish(request + chunks[0]).closed, /^HTTP\/1.1 400[\s\S]*"EPROTO"/);
  t.match(await raw(tcp(daemon), `${request}zz\r\n`), /^HTTP\/1.1 400[\s\S]*"EPROTO"/);
  const twice = head(daemon, 'POST /v1/handles', JSON_TYPE, 'content-length: 2', 'content-length: 3');
  t.match(await raw(tcp(daemon), twice), /^HTTP\/1.1 400/);
});

t.test('an unknown path is 404, with any body', async (t) => {
  const { id } = await daemon.spawn(['true']);
  const broken = { body: '{"a', headers: { 'content-type': 'text/xml' } };
  for (const path of [
    '/nope',
    '/v1',
    '/v1/handles/',
    `/v1/handles/${id}/`,
    '/v1/handles//waitid',
    '/v1/watches/',
    '/livez/',
  ])
    for (const method of ['GET', 'POST', 'DELETE', 'PUT']) {
      const { body } = await daemon.request(method, path, method === 'GET' ? {} : broken);
      t.match(body, { status: 404, errno: 'EPROTO', detail: /path does not exist/ }, `${method} ${path}`);
    }
  t.match((await daemon.get('/v1/handles/')).body.detail, /Remove the trailing slash/);
  const { status, headers } = await daemon.request('PUT', `/v1/handles/${id}`, broken);
  t.match({ status, headers }, { status: 405, headers: { allow: /GET.*PATCH.*DELETE|DELETE/ } });
});

t.teardown(() => daemon.stop());
