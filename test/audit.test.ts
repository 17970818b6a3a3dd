import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { WebSocket } from 'ws';
import { Authority } from './support/certificates.ts';
import { eventually, type RequestOptions, temporaryDirectory } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';

/** Returns audit lines by request id. */
// biome-ignore lint/suspicious/noExplicitAny: the tests state the expected values
function linesOf(path: string): Map<string, any[]> {
  const lines = readFileSync(path, 'utf8').trim().split('\n').filter(Boolean);
  return Map.groupBy(
    lines.map((line) => JSON.parse(line)),
    ({ requestId }) => requestId,
  );
}

t.test('an operation has the same verb when done and refused, and each request has one line', async (t) => {
  const directory = temporaryDirectory(t);
  const audit = join(directory, 'audit.log');
  const clients = {
    a: { ...full, quotas: { handles: 1 } },
    none: {},
    slow: { ...full, quotas: { requestsPerSecond: 0.001 } },
  };
  const daemon = await startWithPolicy(t, clients, { directory, args: ['--audit', audit] });
  const sleeping = { spawn: { argv: ['sleep', '1000'] } };
  const marked = (name: string, id: string, more: Record<string, string> = {}): RequestOptions =>
    as(name, { 'x-request-id': id, ...more });
  const post = (name: string, id: string, body: unknown, more?: Record<string, string>): Promise<unknown> =>
    daemon.post('/v1/handles', body, marked(name, id, more));

  await daemon.get('/v1/node', marked('slow', 'quiet'));
  await post('a', 'done', sleeping);
  await post('a', 'over-the-quota', sleeping);
  await post('none', 'no-right', sleeping);
  await post('stranger', 'wrong-token', { labels: { open: 'x' }, name: 'dup', ...sleeping });
  await post('slow', 'too-often', sleeping);
  await post('a', 'elsewhere', sleeping, { origin: 'http://evil.example' });
  await post('a', 'misspelt', { spawn: { argvs: [] } });
  await post('stranger', 'an-open', { open: { pid: 1 } });
  await post('a', 'no-operation', { nonsense: 1 });
  await daemon.post('/v1/handles/h_x/signal', { signal: 9 }, marked('stranger', 'a-signal'));
  await daemon.get('/v1/events', marked('stranger', 'a-page'));
  await daemon.get('/v1/handles', marked('a', 'a-list'));
  await eventually(() => linesOf(audit).size >= 11);
  const lines = linesOf(audit);
  const expected: [string, string, string][] = [
    ['done', 'spawn', 'ok'],
    ['over-the-quota', 'spawn', 'EDQUOT'],
    ['no-right', 'spawn', 'EPERM'],
    ['wrong-token', 'spawn', 'EACCES'],
    ['too-often', 'spawn', 'EDQUOT'],
    ['elsewhere', 'spawn', 'EPERM'],
    ['misspelt', 'spawn', 'EINVAL'],
    ['an-open', 'open', 'EACCES'],
    ['no-operation', 'refusal', 'EINVAL'],
    ['a-signal', 'signal', 'EACCES'],
    ['a-page', 'refusal', 'EACCES'],
  ];
  for (const [id, verb, result] of expected)
    t.match(lines.get(id), [{ audit: verb, result, peer: `uid:${process.getuid!()}` }], id);
  t.ok([...lines.values()].every((each) => each.length === 1));
  for (const quiet of ['quiet', 'a-list']) t.notOk(lines.has(quiet), 'reads are not audited');
  const { handles } = (await daemon.get('/v1/handles', as('a'))).body;
  for (const { id } of handles) await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`, as('a'));
});

t.test('the peer is the address of the request, also after its connection has closed', async (t) => {
  const directory = temporaryDirectory(t);
  const audit = join(directory, 'audit.log');
  const authority = new Authority(directory, 'authority');
  const server = authority.issue('server', { names: ['DNS.1=localhost'], usage: 'serverAuth' });
  const tls = ['--tls-cert', server.cert, '--tls-key', server.key];
  for (const args of [[], tls]) {
    const at = temporaryDirectory(t);
    const daemon = await startWithPolicy(t, {}, { directory: at, args: ['--audit', audit, ...args] });
    const check = async (round: string): Promise<void> => {
      const secure = args.length > 0;
      const url = secure ? `wss://localhost:${daemon.port}` : `ws://127.0.0.1:${daemon.port}`;
      const options = { headers: { 'x-request-id': round, authorization: 'Bearer wrong-0123456789abcdef' } };
      const socket = new WebSocket(`${url}/v1/events`, ['waitd.v1'], {
        ...options,
        ...(secure && { ca: readFileSync(authority.cert) }),
      });
      socket.on('error', () => {});
      await new Promise((resolve) => socket.once('unexpected-response', resolve));
      socket.terminate();
      await eventually(() => linesOf(audit).has(round));
      t.match(linesOf(audit).get(round), [{ audit: 'refusal', peer: /^(::ffff:)?127\.0\.0\.1$|^::1$/ }], round);
      if (secure) return;
      const left = connect(daemon.port, '127.0.0.1');
      left.on('error', () => {});
      left.end(
        `DELETE /v1/handles/h_x HTTP/1.1\r\nhost: localhost\r\nx-request-id: ${round}-left\r\ncontent-length: 0\r\n\r\n`,
        () => left.destroy(),
      );
      await eventually(() => linesOf(audit).has(`${round}-left`));
      t.match(linesOf(audit).get(`${round}-left`), [{ audit: 'close', peer: '127.0.0.1' }]);
    };
    await check(`started-${args.length}`);
    await daemon.upgrade();
    await check(`inherited-${args.length}`);
    t.equal(await daemon.stop(), 0);
  }
});
