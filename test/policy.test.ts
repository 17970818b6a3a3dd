import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { Daemon, eventually, Gate, type RequestOptions, temporaryDirectory } from './support/harness.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');
const tokenOf = (name: string): string => `${name}-0123456789abcdef`;
const as = (name: string): RequestOptions => ({ headers: { authorization: `Bearer ${tokenOf(name)}` } });
const tokens = (name: string): string[] => [`sha256:${hashOf(tokenOf(name))}`];

const full = { open: 'any', spawn: true, signal: true };

/** Returns a policy with these clients, and with all rights for the user who runs the test. */
function policyOf(clients: Record<string, object>): object {
  const named = Object.entries(clients).map(([name, entry]) => [name, { tokens: tokens(name), ...entry }]);
  return { clients: { [`uid:${process.getuid!()}`]: { ...full, admin: true }, ...Object.fromEntries(named) } };
}

function write(path: string, policy: object | string): void {
  writeFileSync(`${path}.new`, typeof policy === 'string' ? policy : JSON.stringify(policy));
  renameSync(`${path}.new`, path);
}

async function start(t: Test, clients: Record<string, object>): Promise<{ daemon: Daemon; file: string }> {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'policy.yaml');
  write(file, policyOf(clients));
  return { daemon: await Daemon.start(t, { directory, args: ['--policy', file] }), file };
}

function check(t: Test, text: string): { status: number | null; stdout: string; stderr: string } {
  const file = join(temporaryDirectory(t), 'policy.yaml');
  writeFileSync(file, text);
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'policy', 'check', file], { encoding: 'utf8' });
  return { status, stdout: stdout.replaceAll(file, 'FILE'), stderr: stderr.replaceAll(file, 'FILE') };
}

t.test('waitd policy check describes a policy and reports every error in one', async (t) => {
  t.match(check(t, 'clients:\n  uid:1000: {open: uid}\ndefault: {spawn: true}\n'), {
    status: 0,
    stdout: 'FILE: valid policy, clients: 1; other clients have the default rights\n',
  });
  t.match(check(t, '{"clients": {"ci": {"spawn": {"programs": ["/bin/true"]}}}}'), {
    status: 0,
    stdout: /other clients are refused/,
  });
  t.match(check(t, 'base: &b\n  open: any\nclients:\n  a: {<<: *b}\n').stderr, /FILE:1:1: base: unknown field/);
  for (const [text, ...places] of [
    ['clients:\n  ci:\n    opne: any\n', 'FILE:3:5: clients.ci.opne: unknown field'],
    ['clients:\n  ci:\n    open: all\n', 'FILE:3:5: clients.ci.open: '],
    ['clients:\n  ci: {signal: yes}\n', 'FILE:2:8: clients.ci.signal: '],
    [
      'clients:\n  ci:\n    spawn:\n      programs:\n        - bin/true\n',
      'FILE:5:11: clients.ci.spawn.programs.0: must be',
    ],
    ['clients:\n  ci:\n    spawn: {}\n', 'FILE:3:5: clients.ci.spawn: must be true, false, or an object with programs'],
    [
      'clients:\n  ci: {open: uid}\ndefault: {open: uid}',
      'FILE:2:8: clients.ci.open: uid is only for',
      'FILE:3:11: default.open: uid is',
    ],
    ['clients:\n  ci: {tokens: [secret]}\n', 'FILE:2:17: clients.ci.tokens.0: must be sha256:'],
    [
      `clients:\n  a: {tokens: ["sha256:${'0'.repeat(64)}"]}\n  b: {tokens: ["sha256:${'0'.repeat(64)}"]}\n`,
      'is already a token of a',
    ],
    ['clients:\n  a: {}\n  a: {}\n', 'FILE:3:3: Map keys must be unique'],
    ['clients: [\n', 'FILE:2:1: '],
    ['clients:\n  "a b": {}\n', 'FILE:2:3: clients.a b: '],
    ['clients:\n  ci: {quotas: {handles: -1}}\n', 'FILE:2:17: clients.ci.quotas.handles: '],
    ['clients:\n  ci: {quotas: {requestsPerSecond: 0}}\n', 'clients.ci.quotas.requestsPerSecond: '],
    ['just text\n', 'FILE:1:1: policy: '],
  ] as const) {
    const { status, stderr } = check(t, text);
    t.equal(status, 1, text);
    for (const place of places) t.ok(stderr.includes(place), `${place} in ${stderr}`);
    t.notMatch(stderr, /secret/);
  }
  const usage = spawnSync(process.execPath, [MAIN, 'policy'], { encoding: 'utf8' });
  t.match(usage, { status: 2, stderr: /usage: waitd policy check FILE/ });
});

t.test('waitd token makes a token and its hash', async (t) => {
  const { stdout, stderr } = spawnSync(process.execPath, [MAIN, 'token', 'ci'], { encoding: 'utf8' });
  t.match(stdout, /^[\w-]{43}\n$/);
  t.ok(stderr.endsWith(`ci sha256:${hashOf(stdout.trim())}\n`));
  const directory = temporaryDirectory(t);
  const file = join(directory, 'tokens');
  writeFileSync(file, stderr.split('\n').at(-2)!, { mode: 0o600 });
  const daemon = await Daemon.start(t, { directory, args: ['--tokens', file] });
  const options = { headers: { authorization: `Bearer ${stdout.trim()}` } };
  t.equal((await daemon.get('/v1/handles', options)).status, 200);
  const hash = { headers: { authorization: `Bearer ${hashOf(stdout.trim())}` } };
  t.equal((await daemon.get('/v1/handles', hash)).status, 401, 'the hash is not a token');
});

t.test('a start is refused with an invalid policy, or one that others may write', async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'policy.yaml');
  writeFileSync(file, 'clients: {a: {b: c}}');
  for (const complaint of [/policy.yaml:1:15: clients.a.b: unknown field/, /may be changed by other users/]) {
    const daemon = Daemon.begin(t, { directory, args: ['--policy', file] });
    t.equal(await daemon.exited, 1);
    t.match(daemon.log.join(''), complaint);
    chmodSync(file, 0o666);
  }
});

t.test('a client outside the policy is refused; a client in it has the rights that it lists', async (t) => {
  const { daemon, file } = await start(t, { none: {}, opener: { open: 'any' }, spawner: { spawn: true } });
  write(file, { clients: {} });
  await daemon.logged('policy reloaded');
  t.match(
    (await daemon.get('/v1/handles')).body,
    { status: 403, errno: 'EPERM' },
    'the user who runs the daemon is no exception',
  );
  t.match(
    (await daemon.get('/v1/handles', as('none'))).body,
    { status: 401, errno: 'EACCES' },
    'its token was removed too',
  );
  write(file, policyOf({ none: {}, opener: { open: 'any' }, spawner: { spawn: true } }));
  await daemon.logged('policy reloaded', daemon.entries.length);
  const sleeper = await daemon.spawn(['sleep', '1000']);
  const { pid } = sleeper.process;
  const spawn = { spawn: { argv: ['true'] } };
  t.match((await daemon.post('/v1/handles', { open: { pid } }, as('none'))).body, { status: 403, errno: 'EPERM' });
  t.match((await daemon.post('/v1/handles', spawn, as('none'))).body, { status: 403, errno: 'EPERM' });
  t.match((await daemon.get('/metrics', as('none'))).body, { status: 403, errno: 'EPERM' });
  t.equal((await daemon.get('/v1/node', as('none'))).status, 200);
  t.match((await daemon.post('/v1/handles', spawn, as('opener'))).body, { status: 403, errno: 'EPERM' });
  const opened = (await daemon.post('/v1/handles', { open: { pid } }, as('opener'))).body;
  for (const [method, path, body] of [
    ['POST', 'signal', { signal: 'SIGTERM' }],
    ['POST', 'terminate', {}],
    ['DELETE', '?signal=SIGKILL', undefined],
  ] as const) {
    const separator = path.startsWith('?') ? '' : '/';
    const answer = await daemon.request(method, `/v1/handles/${opened.id}${separator}${path}`, {
      ...as('opener'),
      body,
    });
    t.match(answer.body, { status: 403, errno: 'EPERM' }, path);
  }
  t.equal(
    (await daemon.get(`/v1/handles/${opened.id}`, as('opener'))).body.state,
    'running',
    'the handle is still open',
  );
  t.equal((await daemon.request('DELETE', `/v1/handles/${opened.id}`, as('opener'))).status, 204);
  t.equal((await daemon.post('/v1/handles', spawn, as('spawner'))).status, 201);
  await daemon.signal(sleeper.id, 'SIGKILL');
});

t.test('open: own covers descendants of the client’s processes, uid covers processes of its user', async (t) => {
  const { daemon } = await start(t, { mine: { open: 'own', spawn: true }, other: { open: 'own', spawn: true } });
  const gate = new Gate(t);
  const script = `sleep 1000 & echo $!; setsid sleep 1001 & echo $!; read -r _ < ${gate.path}`;
  const { id } = (
    await daemon.post('/v1/handles', { spawn: { argv: ['sh', '-c', script], stdout: 'capture' } }, as('mine'))
  ).body;
  let pids: number[] = [];
  await eventually(async () => {
    pids = (await daemon.get(`/v1/handles/${id}/stdout`, as('mine'))).text.trim().split('\n').map(Number);
    return pids.length === 2;
  });
  t.teardown(() => {
    for (const pid of pids) process.kill(pid, 'SIGKILL');
  });
  for (const pid of pids) {
    t.equal((await daemon.post('/v1/handles', { open: { pid } }, as('mine'))).status, 201);
    t.match((await daemon.post('/v1/handles', { open: { pid } }, as('other'))).body, { status: 403, errno: 'EPERM' });
  }
  for (const pid of [1, daemon.pid])
    t.match((await daemon.post('/v1/handles', { open: { pid } }, as('mine'))).body, { status: 403, errno: 'EPERM' });
  gate.open();

  const uid = process.getuid!();
  const directory = temporaryDirectory(t);
  const file = join(directory, 'policy');
  write(file, { clients: { [`uid:${uid}`]: { open: 'uid' } } });
  const second = await Daemon.start(t, { directory, args: ['--policy', file] });
  t.equal((await second.post('/v1/handles', { open: { pid: second.pid } })).status, 201);
  if (uid === 0) {
    const nobody = await daemon.spawn(['setpriv', '--reuid=65534', '--clear-groups', 'sleep', '1000']);
    await eventually(() => readFileSync(`/proc/${nobody.process.pid}/status`, 'utf8').includes('Uid:\t65534'));
    t.match((await second.post('/v1/handles', { open: { pid: nobody.process.pid } })).body, { errno: 'EPERM' });
    await daemon.signal(nobody.id, 'SIGKILL');
  } else t.pass('a process of another user', { skip: 'only root can start one' });
});

t.test('spawn: only listed programs, directories and variables are allowed, also through links', async (t) => {
  const directory = temporaryDirectory(t);
  for (const name of ['programs', 'work', 'outside']) mkdirSync(join(directory, name));
  const at = (...parts: string[]): string => join(directory, ...parts);
  for (const place of ['programs', 'outside']) {
    writeFileSync(at(place, 'job'), '#!/bin/sh\npwd\necho "$ALLOWED $LD_PRELOAD"\n', { mode: 0o755 });
  }
  symlinkSync(at('outside', 'job'), at('work', 'job'));
  symlinkSync(at('outside'), at('work', 'link'));
  symlinkSync(at('outside', 'file'), at('work', 'file'));
  symlinkSync(at('programs'), at('also'));
  const rule = {
    programs: ['/bin/echo', `${at('programs')}/`],
    directories: [at('work')],
    environment: ['ALLOWED', 'JOB_*'],
  };
  const { daemon } = await start(t, { limited: { spawn: rule } });
  const spawn = (body: object): Promise<{ status: number; body: { errno?: string; outcome?: unknown; id: string } }> =>
    daemon.post(
      '/v1/handles',
      { spawn: body },
      { ...as('limited'), headers: { ...as('limited').headers, prefer: 'wait=20' } },
    );
  for (const body of [
    { argv: ['echo', 'a'] },
    { argv: ['/bin/echo', 'a'] },
    { argv: ['/usr/bin/../bin/echo', 'a'] },
    { argv: [at('programs', 'job')] },
    { argv: [at('also', 'job')] },
    { argv: ['../programs/job'], cwd: at('work') },
    { argv: [at('programs', 'job')], env: { ALLOWED: 'x', JOB_1: 'y' }, cwd: at('work') },
    { argv: ['echo', 'a'], stdout: { file: at('work', 'out') }, stderr: { file: at('work', 'err'), append: true } },
  ])
    t.match(await spawn(body), { status: 201, body: { outcome: { exitCode: 0 } } }, JSON.stringify(body));
  t.equal(readFileSync(at('work', 'out'), 'utf8'), 'a\n');
  for (const body of [
    { argv: ['true'] },
    { argv: ['sh', '-c', 'echo'] },
    { argv: [at('outside', 'job')] },
    { argv: [at('programs', '..', 'outside', 'job')] },
    { argv: [at('work', 'job')] },
    { argv: ['./job'], cwd: at('work') },
    { argv: ['echo'], cwd: at('outside') },
    { argv: ['echo'], cwd: at('work', 'link') },
    { argv: ['echo'], cwd: at('nowhere') },
    { argv: ['echo'], env: { LD_PRELOAD: '/x.so' } },
    { argv: ['echo'], env: { PATH: at('outside') } },
    { argv: ['echo'], stdout: { file: at('outside', 'out') } },
    { argv: ['echo'], stdout: { file: at('work', 'link', 'out') } },
    { argv: ['echo'], stderr: { file: at('work', '..', 'err') } },
    { argv: ['echo'], stdout: 'inherit' },
  ])
    t.match(await spawn(body), { status: 403, body: { errno: 'EPERM' } }, JSON.stringify(body));
  t.match(await spawn({ argv: ['echo'], stdout: { file: at('work', 'file') } }), {
    status: 422,
    body: { errno: 'ELOOP' },
  });
  t.match(await spawn({ argv: ['no-such-program'] }), { status: 422, body: { errno: 'ENOENT' } });
});

t.test('quotas limit concurrent use and rates, and released units are free again', async (t) => {
  const { daemon } = await start(t, {
    held: { ...full, quotas: { handles: 2 } },
    parked: { ...full, quotas: { parkedWaits: 1 } },
    sockets: { ...full, quotas: { sockets: 1, subscriptions: 2 } },
    quick: { ...full, quotas: { spawnsPerSecond: 1 } },
    asking: { ...full, quotas: { requestsPerSecond: 2 } },
    connected: { ...full, quotas: { connections: 1 } },
  });
  const sleeping = { spawn: { argv: ['sleep', '1000'] } };
  const ids: string[] = [];
  const make = async (name: string): Promise<string> => {
    const { id } = (await daemon.post('/v1/handles', sleeping, as(name))).body;
    ids.push(id);
    return id;
  };
  t.teardown(async () => {
    for (const id of ids) await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
  });
  const refused = { status: 429, body: { errno: 'EDQUOT' }, headers: { 'retry-after': '1' } };

  const [first] = [await make('held'), await make('held')];
  t.match(await daemon.post('/v1/handles', sleeping, as('held')), refused);
  t.match(await daemon.post('/v1/handles', { dup: first }, as('held')), refused);
  t.match(await daemon.post('/v1/handles', { open: { pid: daemon.pid } }, as('held')), refused);
  await daemon.post(`/v1/handles/${first}/signal`, { signal: 'SIGKILL' }, as('held'));
  await daemon.post('/v1/poll', { handles: [first] }, as('held'));
  await make('held');

  const waiting = await make('parked');
  const caller = new AbortController();
  const parked = daemon.waitid(waiting, {}, { ...as('parked'), signal: caller.signal }).catch(() => 'gone');
  const parkedNow = async (): Promise<boolean> => (await daemon.get('/metrics')).text.includes('waitd_parked_calls 1');
  await eventually(parkedNow);
  for (const [path, body] of [
    [`/v1/handles/${waiting}/waitid`, {}],
    ['/v1/poll', { handles: [waiting] }],
    [`/v1/handles/${waiting}/terminate`, {}],
  ] as const)
    t.match(await daemon.post(path, body, as('parked')), refused, path);
  t.match(await daemon.get('/v1/events?type=closed&timeoutMs=1000', as('parked')), refused);
  t.equal(
    (await daemon.waitid(waiting, { options: ['WEXITED', 'WNOHANG'] }, as('parked'))).status,
    200,
    'it does not park',
  );
  t.equal(
    (await daemon.get(`/v1/handles/${waiting}`, as('parked'))).body.state,
    'running',
    'a refused request has no effect',
  );
  const prefer = { headers: { ...as('parked').headers!, prefer: 'wait=60' } };
  t.equal(
    (await daemon.post('/v1/handles', { spawn: { argv: ['true'] } }, prefer)).status,
    201,
    'Prefer is only a preference',
  );
  caller.abort();
  await parked;
  await eventually(async () => !(await parkedNow()));
  t.match((await daemon.waitid(waiting, { timeoutMs: 1 }, as('parked'))).body, { timedOut: true });

  const three = [await make('sockets'), await make('sockets'), await make('sockets')];
  const bearer = `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf('sockets')).toString('base64url')}`;
  const protocols = ['waitd.v1', bearer];
  const tooMany = daemon.ws(`?${three.map((id) => `handle=${id}`).join('&')}`, protocols);
  t.match(
    await new Promise((resolve) => tooMany.ws.once('unexpected-response', (_, { statusCode }) => resolve(statusCode))),
    429,
  );
  const socket = daemon.ws('', protocols);
  await socket.first(({ type }) => type === 'hello');
  const second = daemon.ws('', protocols);
  t.match(
    await new Promise((resolve) => second.ws.once('unexpected-response', (_, { statusCode }) => resolve(statusCode))),
    429,
  );
  const stream = { headers: { ...as('sockets').headers!, accept: 'text/event-stream' } };
  t.match(await daemon.get('/v1/events', stream), refused);
  socket.send({ type: 'subscribe', handles: three });
  t.match(await socket.first(({ type }) => type === 'error'), { errno: 'EDQUOT' });
  socket.send({ type: 'subscribe', handles: three.slice(0, 2) });
  await socket.first(({ type }) => type === 'subscribed');
  socket.send({ type: 'unsubscribe', handles: three.slice(0, 1) });
  socket.send({ type: 'subscribe', handles: three.slice(2) });
  t.match(await socket.first(({ type, handles }) => type === 'subscribed' && handles.length === 1), {
    handles: three.slice(2),
  });
  socket.close();
  await socket.closed;
  await eventually(async () => {
    const again = daemon.ws('', protocols);
    const opened = await new Promise((resolve) => {
      again.ws.once('open', () => resolve(true));
      again.ws.once('unexpected-response', () => resolve(false));
    });
    again.close();
    return opened === true;
  });

  await make('quick');
  t.match(await daemon.post('/v1/handles', sleeping, as('quick')), refused);
  const frames = daemon.ws('', [
    'waitd.v1',
    `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf('asking')).toString('base64url')}`,
  ]);
  await frames.first(({ type }) => type === 'hello');
  for (let n = 0; n < 5; n += 1) frames.send({ type: 'subscribe', handles: ['h_nosuch'] });
  await frames.until(() => frames.frames.length === 6);
  t.ok(
    frames.frames.some(({ errno }) => errno === 'EDQUOT'),
    'frames count too',
  );
  frames.close();
  await eventually(async () => (await daemon.get('/v1/handles', as('asking'))).status === 200);
  const asked = await Promise.all(Array.from({ length: 5 }, () => daemon.get('/v1/handles', as('asking'))));
  t.ok(asked.filter(({ status }) => status === 429).length >= 3);
  const connections = await Promise.all(Array.from({ length: 3 }, () => daemon.get('/v1/handles', as('connected'))));
  t.ok(connections.some(({ status, headers }) => status === 429 && headers.connection === 'close'));
  t.ok(connections.some(({ status }) => status === 200));
});

t.test('captured output: over its quota a client loses the oldest, then may capture no more', async (t) => {
  const quota = 2 ** 20;
  const { daemon } = await start(t, { writer: { ...full, quotas: { outputBytes: quota } } });
  const write = async (): Promise<{ status: number; body: { id: string; errno?: string } }> => {
    const spawn = { argv: ['head', '-c', '3000000', '/dev/zero'], stdout: 'capture' };
    return daemon.post('/v1/handles', { spawn }, { headers: { ...as('writer').headers!, prefer: 'wait=20' } });
  };
  const first = await write();
  t.equal(first.status, 201);
  const socket = daemon.ws(`?handle=${first.body.id}`);
  await socket.first(({ event }) => event === 'output');
  socket.close();
  const kept = async (id: string): Promise<number> => (await daemon.get(`/v1/handles/${id}/stdout`)).text.length;
  await eventually(async () => (await kept(first.body.id)) <= quota + 2 ** 18);
  await eventually(async () => (await write()).status === 429);
  t.equal(
    (await daemon.post('/v1/handles', { spawn: { argv: ['true'] } }, as('writer'))).status,
    201,
    'without capture',
  );
  const { handles } = (await daemon.get('/v1/handles', as('writer'))).body;
  for (const { id } of handles) await daemon.request('DELETE', `/v1/handles/${id}`, as('writer'));
  t.equal((await write()).status, 201, 'a closed handle frees its place');
});

t.test('a new version takes effect at once, also for connected clients; an invalid one is refused', async (t) => {
  const { daemon, file } = await start(t, { a: full, b: full });
  const { id } = (await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '1000'] } }, as('a'))).body;
  const bearer = (name: string): string[] => [
    'waitd.v1',
    `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf(name)).toString('base64url')}`,
  ];
  const [first, second] = [daemon.ws('', bearer('a')), daemon.ws('', bearer('b'))];
  await Promise.all([first, second].map((socket) => socket.first(({ type }) => type === 'hello')));
  const parked = daemon.waitid(id, {}, as('a')).catch((error) => error.code);
  await eventually(async () => (await daemon.get('/metrics')).text.includes('waitd_parked_calls 1'));

  write(file, 'clients: {a: {nonsense: true}}');
  t.match(await daemon.logged('policy refused; the previous version stays in force'), {
    reason: /1:15: clients.a.nonsense/,
  });
  t.equal((await daemon.get(`/v1/handles/${id}`, as('a'))).status, 200);
  t.match((await daemon.get('/metrics')).text, /waitd_policy_stale 1/);

  write(file, policyOf({ b: { ...full, observe: true } }));
  await daemon.logged('policy reloaded');
  t.match(await first.closed, { code: 1008, reason: 'credentials revoked' });
  t.equal(await parked, 'ECONNRESET', 'it is not answered');
  t.equal((await daemon.get(`/v1/handles/${id}`, as('a'))).status, 401);
  t.equal((await daemon.get(`/v1/handles/${id}`, as('b'))).status, 200, 'it may do what the new policy allows');
  t.equal(second.ws.readyState, second.ws.OPEN, 'its socket stays open');
  t.match((await daemon.get('/metrics')).text, /waitd_policy_stale 0/);

  const observing = daemon.ws('', bearer('b'));
  await observing.first(({ type }) => type === 'hello');
  const from = daemon.entries.length;
  write(file, policyOf({ b: full }));
  await daemon.logged('policy reloaded', from);
  t.match(await observing.closed, { code: 1008 }, 'a former observer is disconnected');
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('a policy behind a symbolic link is read again when the link changes', async (t) => {
  const directory = temporaryDirectory(t);
  for (const name of ['one', 'two']) mkdirSync(join(directory, name));
  write(join(directory, 'one', 'policy'), policyOf({}));
  write(join(directory, 'two', 'policy'), policyOf({ late: full }));
  symlinkSync('one', join(directory, 'data'));
  symlinkSync('data/policy', join(directory, 'policy'));
  const daemon = await Daemon.start(t, { directory, args: ['--policy', join(directory, 'policy')] });
  t.equal((await daemon.get('/v1/handles', as('late'))).status, 401);
  symlinkSync('two', join(directory, 'data.new'));
  renameSync(join(directory, 'data.new'), join(directory, 'data'));
  await daemon.logged('policy reloaded');
  t.equal((await daemon.get('/v1/handles', as('late'))).status, 200);
  const from = daemon.entries.length;
  writeFileSync(join(directory, 'two', 'policy'), JSON.stringify(policyOf({})));
  await daemon.logged('policy reloaded', from);
  t.equal((await daemon.get('/v1/handles', as('late'))).status, 401, 'also when it is written in place');
});

t.test('the audit states client, verb, result and request', async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'policy');
  const audit = join(directory, 'audit.log');
  write(file, policyOf({ a: full, none: {} }));
  const daemon = await Daemon.start(t, { directory, args: ['--policy', file, '--audit', audit] });
  const secret = 'very-secret-value';
  const ask = async (method: string, path: string, name: string, requestId: string, body?: object): Promise<string> => {
    const headers = { ...as(name).headers!, 'x-request-id': requestId };
    return (await daemon.request(method, path, { headers, ...(body && { body }) })).body?.id;
  };
  const spawn = { argv: ['cat', '/dev/zero', secret], env: { KEY: secret }, stdin: { text: secret } };
  const id = await ask('POST', '/v1/handles', 'a', 'r1', { spawn, labels: { l: secret } });
  await ask('POST', `/v1/handles/${id}/signal`, 'a', 'r2', { signal: 'SIGKILL' });
  await ask('DELETE', `/v1/handles/${id}`, 'a', 'r3');
  await ask('POST', '/v1/handles', 'a', 'r4', { open: { pid: daemon.pid } });
  await ask('POST', '/v1/handles', 'none', 'r5', { spawn: { argv: ['true'] } });
  await ask('GET', '/v1/handles', 'stranger', 'r6');
  await ask('GET', '/metrics', 'none', 'r7');
  await ask('GET', '/v1/handles', 'a', 'r8');
  await ask('POST', '/v1/handles', 'a', 'r9', { spawn: { argv: ['no-such-program'] } });
  // An answer precedes its line by a moment.
  await eventually(() => readFileSync(audit, 'utf8').split('\n').length > 8);
  const text = readFileSync(audit, 'utf8');
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(lines, [
    { audit: 'spawn', client: 'a', requestId: 'r1', handle: id, program: 'cat', result: 'ok' },
    { audit: 'signal', client: 'a', requestId: 'r2', handle: id, signal: 'SIGKILL', scope: 'process' },
    { audit: 'close', client: 'a', requestId: 'r3', handle: id, result: 'ok' },
    { audit: 'open', client: 'a', requestId: 'r4', pid: daemon.pid, result: 'ok' },
    { audit: 'spawn', client: 'none', requestId: 'r5', result: 'EPERM' },
    { audit: 'refusal', client: null, requestId: 'r6', method: 'GET', route: '/v1/handles', result: 'EACCES' },
    { audit: 'refusal', client: 'none', requestId: 'r7', route: '/metrics', result: 'EPERM' },
    { audit: 'spawn', client: 'a', requestId: 'r9', result: 'ENOENT' },
  ]);
  t.equal(lines.length, 8);
  t.notMatch(text, secret);
  t.notMatch(text, tokenOf('a'));
});

const asRoot = process.getuid!() === 0 ? {} : { skip: 'only root can become other users' };

t.test('other users may use the Unix socket if its mode, its group and the policy allow it', asRoot, async (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const file = join(directory, 'policy');
  write(file, { clients: { 'uid:65534': { open: 'uid' } } });
  const args = ['--policy', file, '--socket-group', 'nogroup'];
  const daemon = await Daemon.start(t, { directory, args });
  const { mode, gid } = statSync(daemon.socket);
  t.match([(mode & 0o777).toString(8), gid], ['660', 65534]);
  const ask = (uid: number, ...more: string[]): string => {
    const curl = ['curl', '-sS', '-m', '10', '--unix-socket', daemon.socket, ...more, 'http://localhost/v1/handles'];
    const identity = [`--reuid=${uid}`, '--regid=65534', '--clear-groups'];
    return spawnSync('setpriv', [...identity, ...curl], { encoding: 'utf8' }).stdout;
  };
  t.match(ask(65534), '"handles":[]');
  t.match(ask(1), '"errno":"EPERM"', 'it can connect, and is refused');
  t.match(ask(65534, '-H', 'content-type: application/json', '-d', '{"open":{"pid":1}}'), '"errno":"EPERM"');
  for (const wrong of [
    ['--socket-mode', '9'],
    ['--socket-group', 'no-such-group'],
  ]) {
    const refused = Daemon.begin(t, { args: wrong });
    t.equal(await refused.exited, 2);
  }
});
