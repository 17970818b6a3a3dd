import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { Database } from '../src/journal/database.ts';
import { Daemon, type RequestOptions, temporaryDirectory } from './support/harness.ts';

/** Returns a JSON list of that many equal strings. */
const list = (count: number, each: string): string => `[${new Array(count).fill(each).join()}]`;

/** Returns a JSON record of that many entries with different names. */
function record(count: number, value: string): string {
  const entries = Array.from({ length: count }, (_, at) => `"v${at.toString(36)}":${value}`);
  return `{${entries.join()}}`;
}

const spawnOf = (argv: string, env = '{}'): string => `{"spawn":{"argv":${argv},"env":${env}}}`;

/** Bodies with very many errors. */
const wrong: Record<string, [path: string, body: string]> = {
  arguments: ['/v1/handles', spawnOf(list(2_000_000, '1'))],
  'arguments after the first': ['/v1/handles', spawnOf(`["true",${list(1_900_000, '1').slice(1)}`)],
  'arguments at the end': [
    '/v1/handles',
    spawnOf(`${list(300_000, '"a"').slice(0, -1)},${list(300_000, '1').slice(1)}`),
  ],
  variables: ['/v1/handles', spawnOf('["true"]', record(100_000, '1'))],
  'names of variables': ['/v1/handles', spawnOf('["true"]', record(100_000, '"x"').replaceAll('"v', '"='))],
  labels: ['/v1/handles', `{"spawn":{"argv":["true"]},"labels":${record(100_000, '1')}}`],
  limits: ['/v1/handles', `{"spawn":{"argv":["true"],"limits":${record(100_000, '1')}}}`],
  'unknown fields': ['/v1/handles', record(100_000, '1')],
  'unknown fields of a spawn': ['/v1/handles', `{"spawn":${record(100_000, '1')}}`],
  'labels of a watch': ['/v1/watches', `{"match":{"argv":"*"},"labels":${record(100_000, '1')}}`],
  'handles of a poll': ['/v1/poll', `{"handles":${list(2_000_000, '1')}}`],
  'short handles of a poll': ['/v1/poll', `{"handles":${list(9000, '1')}}`],
  options: ['/v1/handles/h_none/waitid', `{"options":${list(2_000_000, '1')}}`],
  'a signal': ['/v1/handles/h_none/signal', `{"signal":"${'X'.repeat(4_000_000)}"}`],
  'a grace': ['/v1/handles/h_none/terminate', `{"graceMs":${list(2_000_000, '1')}}`],
};

t.test('a body with many errors is answered with twenty of them at most', async (t) => {
  const daemon = await Daemon.start(t);
  for (const [name, [path, body]] of Object.entries(wrong)) {
    const answer = await daemon.post(path, body);
    t.match(answer, { status: 400, body: { errno: 'EINVAL' } }, name);
    t.ok(answer.body.errors.length <= 20, `${name}: ${answer.body.errors.length} errors`);
    t.ok(answer.text.length < 16_384, `${name}: ${answer.text.length} bytes`);
  }
  const { id } = await daemon.spawn(['sleep', '0']);
  t.ok(id, 'the limit also holds after valid entries');
  const { errors } = (await daemon.post(...wrong.arguments!)).body;
  t.match(errors[0], { path: '/spawn/argv/0' });
  t.same(errors.at(-1), { path: '', message: 'and more' });
  t.equal(
    (await daemon.post('/v1/handles', spawnOf('["true",1]'))).body.errors.length,
    1,
    'a single error is reported alone',
  );
});

t.test('a client without rights gets EPERM before its body is checked', async (t) => {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy.json');
  const token = 'nobody-0123456789abcdef';
  writeFileSync(policy, JSON.stringify({ clients: { nobody: { tokens: [`sha256:${hashOf(token)}`] } } }));
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  const nobody: RequestOptions = { headers: { authorization: `Bearer ${token}` } };
  for (const name of ['arguments', 'variables', 'labels', 'labels of a watch', 'a signal', 'a grace']) {
    const [path, body] = wrong[name]!;
    t.match(await daemon.post(path, body, nobody), { status: 403, body: { errno: 'EPERM' } }, name);
  }
  const open = { open: { pid: 'not a pid' } };
  t.match(await daemon.post('/v1/handles', open, nobody), { status: 403, body: { errno: 'EPERM' } });
});

t.test('more arguments and variables than the kernel accepts are E2BIG', async (t) => {
  const daemon = await Daemon.start(t);
  for (const body of [
    spawnOf(list(1_300_000, '""').replace('""', '"/bin/true"')),
    spawnOf(`["/bin/true",${list(250_000, '""').slice(1)}`),
    spawnOf(list(30, `"${'x'.repeat(100_000)}"`).replace('"x', '"/bin/true","x')),
    spawnOf('["/bin/true"]', record(200_000, '""')),
    spawnOf('["/bin/true"]', `{"X":"${'x'.repeat(200_000)}"}`),
  ])
    t.match(await daemon.post('/v1/handles', body), { status: 413, body: { errno: 'E2BIG' } }, body.slice(0, 60));
});

t.test('a deeply nested body is refused unparsed', async (t) => {
  const daemon = await Daemon.start(t);
  for (const body of ['['.repeat(1_000_000) + ']'.repeat(1_000_000), '{"a":'.repeat(100_000)])
    t.match((await daemon.post('/v1/handles', body)).body, { errno: 'EINVAL', detail: /nests deeper/ });
  const brackets = JSON.stringify(`${'[{:"\\'.repeat(20_000)}`);
  const spawn = spawnOf(`["/bin/true",${brackets}]`);
  t.equal((await daemon.post('/v1/handles', spawn)).status, 201, 'brackets in a string do not count');
});

t.test('a list of handles accepts as many label filters as a handle has labels', async (t) => {
  const daemon = await Daemon.start(t);
  const labels = Object.fromEntries(Array.from({ length: 64 }, (_, at) => [`k${at}`, String(at)]));
  const { id } = await daemon.spawn(['true'], { labels });
  const filters = Object.entries(labels).map(([key, value]) => `label=${key}%3D${value}`);
  t.match((await daemon.get(`/v1/handles?${filters.join('&')}`)).body.handles, [{ id }]);
  t.same((await daemon.get(`/v1/handles?${filters.slice(1).join('&')}&label=k0%3Dno`)).body.handles, []);
  t.match(await daemon.get(`/v1/handles?${filters.join('&')}&label=k%3D1`), { status: 400 });
  const one = (key: string) => daemon.request('PATCH', `/v1/handles/${id}`, { body: { labels: { [key]: 'x' } } });
  t.match(
    await one('another'),
    { status: 400, body: { errno: 'EINVAL', handle: id } },
    'the cache does not grow further',
  );
  t.match(await one('k0'), { status: 200 });
});

t.test('the most recently used prepared statements are kept', (t) => {
  const database = new Database(temporaryDirectory(t));
  t.teardown(() => database.close());
  const used = database.statement('SELECT -1');
  const unused = database.statement('SELECT -2');
  for (let shape = 0; shape < 1000; shape += 1) {
    database.statement(`SELECT ${shape}`);
    t.equal(database.statement('SELECT -1'), used);
  }
  t.not(database.statement('SELECT -2'), unused);
  t.end();
});
