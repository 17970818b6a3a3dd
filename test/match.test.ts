import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Pattern } from '../src/model/pattern.ts';
import { Facts } from '../src/watches/facts.ts';
import { commandLineOf, Daemon, eventually, Gate, temporaryDirectory } from './support/harness.ts';

let marks = 0;
/** Returns a string that no other process on this machine has in its arguments. */
const mark = (): string => {
  marks += 1;
  return `mark-${process.pid}-${marks}`;
};

/** Starts a sleeping process with that name. */
function sleeper(t: Test, name: string, program = 'sleep'): ChildProcess {
  const child = spawn(program, ['1000'], { argv0: name, stdio: 'ignore' });
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });
  return child;
}

const open = (daemon: Daemon, match: object, more: object = {}) =>
  daemon.post('/v1/handles', { open: { match }, ...more });

t.test('a pattern: * matches any text, every other character matches itself', (t) => {
  for (const [pattern, text, fits] of [
    ['abc', 'abc', true],
    ['abc', 'abcd', false],
    ['', '', true],
    ['*', '', true],
    ['*', 'anything at all\n', true],
    ['a*', 'a', true],
    ['*a', 'ba', true],
    ['a*a', 'a', false],
    ['a*a', 'aa', true],
    ['a*b*c', 'aXbYc', true],
    ['a*b*c', 'acb', false],
    ['*b*b*', 'b', false],
    ['a.c', 'abc', false],
    ['[a]?', '[a]?', true],
    ['**', 'x', true],
    ['ab*ba', 'aba', false],
  ] as const)
    t.equal(new Pattern(pattern).fits(text), fits, `${pattern} and ${text}`);
  const text = 'a'.repeat(1_000_000);
  t.notOk(new Pattern(`${'a*'.repeat(2000)}b`).fits(text), 'with any number of wildcards');
  const half = 'a'.repeat(2000);
  t.notOk(new Pattern(`*${half}b${half}*`).fits(text), 'with long partial matches');
  t.ok(new Pattern(`*${half}b${half}*`).fits(`${text}b${text}`));
  t.ok(new Pattern(`*abab${half}*abac*`).fits(`${'ab'.repeat(9999)}${text}${'ab'.repeat(99)}ac`));
  t.notOk(new Pattern(`*abab${half}*abad*`).fits(`${'ab'.repeat(9999)}${text}${'ab'.repeat(99)}ac`));
  t.end();
});

t.test('the only process that matches is opened, as by its pid', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  const { pid } = sleeper(t, name);
  for (const match of [
    { argv: `${name} 1000` },
    { argv: `${name}*` },
    { argv: `*${name}*`, exe: '*/sleep' },
    { argv: `*${name}*`, exe: '*', cgroup: '/*' },
  ]) {
    const answer = await open(daemon, match, { labels: { found: 'yes' }, nonblocking: true });
    t.match(answer, {
      status: 201,
      body: {
        process: { pid, argv: [name, '1000'] },
        relation: 'foreign',
        nonblocking: true,
        labels: { found: 'yes' },
      },
    });
    t.notOk('watch' in answer.body);
  }
  const { id } = (await open(daemon, { argv: `${name}*` })).body;
  process.kill(pid!, 'SIGKILL');
  const { exitStatus } = await daemon.features();
  t.match((await daemon.post('/v1/poll', { handles: [id], for: 'outcome' })).body.ready, [
    { outcome: exitStatus ? { reason: 'killed', signal: 'SIGKILL' } : { reason: 'unknown' } },
  ]);
  t.match(await open(daemon, { argv: `${name}*` }), { status: 404, body: { errno: 'ESRCH' } });
});

t.test('no match is ESRCH; several matches are listed', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  t.match(await open(daemon, { argv: name }), { status: 404, body: { errno: 'ESRCH', detail: /^No process matches/ } });
  const pids = [sleeper(t, name), sleeper(t, name)].map(({ pid }) => pid!);
  const { status, body } = await open(daemon, { argv: `${name} *` });
  t.equal(status, 409);
  t.match(body, { errno: 'ENOTUNIQ', detail: /^2 processes match/ });
  const { candidates } = body as { candidates: { pid: number; inode: string | null }[] };
  t.same(
    candidates.map(({ pid }) => pid).sort((a, b) => a - b),
    pids.sort((a, b) => a - b),
  );
  const [{ pid, inode }] = candidates as [{ pid: number; inode: string | null }];
  t.match(await daemon.post('/v1/handles', { open: { pid, inode } }), { status: 201, body: { process: { inode } } });
  for (const wrong of [
    { argv: name },
    { argv: `${name} *`, exe: '/nowhere' },
    { argv: `${name} *`, cgroup: '/no/such' },
  ])
    t.equal((await open(daemon, wrong)).status, 404, JSON.stringify(wrong));
});

t.test('the daemon itself, zombies and kernel threads do not match', async (t) => {
  const daemon = await Daemon.start(t);
  t.equal((await open(daemon, { argv: `*${daemon.directory}*` })).status, 404);
  const name = mark();
  // sleep reaps no children. The child waits until its parent has become sleep, since a shell would reap it.
  const wait = 'until read -r comm < /proc/$$/comm && [ "$comm" = sleep ]; do sleep 0.01; done';
  const script = `(${wait}; exec -a ${name} sleep 0) & exec sleep 1000`;
  const parent = spawn('bash', ['-c', script], { stdio: 'ignore' });
  t.teardown(() => parent.kill('SIGKILL'));
  const children = (): string => readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, 'utf8').trim();
  await eventually(() => /^\d+$/.test(children()) && / Z /.test(readFileSync(`/proc/${children()}/stat`, 'utf8')));
  t.equal((await open(daemon, { argv: `*${name}*` })).status, 404);
  const kernel = readFileSync('/proc/2/comm', 'utf8') === 'kthreadd\n';
  if (kernel) t.equal(Facts.of(2, new Map()), null);
  else t.pass('kernel threads are not shown', { skip: 'this pid namespace has none' });
});

const asRoot = process.getuid!() === 0 ? {} : { skip: 'only root can start a process of another user' };

t.test('a program that the daemon may not inspect does not match, and the answer says so', asRoot, async (t) => {
  const directory = temporaryDirectory(t);
  const prefix = ['setpriv', '--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace'];
  const daemon = await Daemon.start(t, { directory, prefix });
  const name = mark();
  // A process of another user that is not dumpable: only CAP_SYS_PTRACE may read it.
  const child = spawn('setpriv', ['--reuid=65534', '--clear-groups', 'bash', '-c', `exec -a ${name} sleep 1000`], {
    stdio: 'ignore',
  });
  t.teardown(() => child.kill('SIGKILL'));
  await eventually(() => commandLineOf(child.pid!).startsWith(name));
  t.match(await open(daemon, { argv: `${name}*`, exe: '*/sleep' }), {
    status: 404,
    body: {
      detail: 'No process matches among those that you may open; the daemon may not read the program of 1 other.',
    },
  });
  t.equal((await open(daemon, { argv: `${name}*` })).status, 201);
});

const hierarchy = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((path) => existsSync(join(path, 'cgroup.procs')));
const unified = isWritable(hierarchy) ? {} : { skip: 'no cgroup (v2) can be created here' };

function isWritable(directory: string | undefined): boolean {
  if (directory === undefined) return false;
  try {
    rmdirSync(mkdtempSync(join(directory, 'mark-')));
    return true;
  } catch {
    return false;
  }
}

t.test('a match by cgroup', unified, async (t) => {
  const name = mark();
  const group = join(hierarchy!, name);
  mkdirSync(group);
  const { pid } = sleeper(t, 'sleep');
  writeFileSync(join(group, 'cgroup.procs'), String(pid));
  t.teardown(async () => {
    process.kill(pid!, 'SIGKILL');
    await eventually(() => readFileSync(join(group, 'cgroup.procs'), 'utf8') === '');
    rmdirSync(group);
  });
  const daemon = await Daemon.start(t);
  t.match(await open(daemon, { cgroup: `*/${name}` }), { status: 201, body: { process: { pid } } });
  t.equal((await open(daemon, { cgroup: `*/${name}/` })).status, 404);
});

t.test('of several matches, the candidates are those that the client may open', async (t) => {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy.yaml');
  const uid = process.getuid!();
  const write = (open: string): void =>
    writeFileSync(policy, JSON.stringify({ clients: { [`uid:${uid}`]: { open, spawn: true } } }));
  write('own');
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  const name = mark();
  sleeper(t, name);
  t.match(await open(daemon, { argv: `${name}*` }), { status: 404, body: { errno: 'ESRCH' } });
  const own = await daemon.spawn(['bash', '-c', `exec -a ${name} sleep 1000`]);
  t.teardown(() => process.kill(own.process.pid, 'SIGKILL'));
  await eventually(() => commandLineOf(own.process.pid).startsWith(name));
  t.match(await open(daemon, { argv: `${name}*` }), { status: 201, body: { process: { pid: own.process.pid } } });
  write('none');
  await daemon.logged('policy reloaded');
  t.match(await open(daemon, { argv: `${name}*` }), { status: 403, body: { errno: 'EPERM' } });
});

t.test('secret arguments of a held process neither match for another client nor are shown to it', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  const gate = new Gate(t);
  const argv = ['bash', '-c', `read -r line < ${gate.path}`, name, { secret: 'sesame' }];
  const other = { tcp: true };
  const find = (match: object) => daemon.post('/v1/handles', { open: { match } }, other);
  const watch = async (argv: string): Promise<string> =>
    (await daemon.post('/v1/watches', { match: { argv }, existing: true }, other)).body.id;
  for (const more of [{}, { umask: '022' }]) {
    const { status } = await daemon.post('/v1/handles', { spawn: { argv, ...more } });
    t.equal(status, 201);
    t.match(await find({ argv: `*${name} s*` }), { status: 404 }, 'a guess does not match');
  }
  const told = await find({ argv: `*${name} *` });
  t.equal(told.status, 409);
  t.notMatch(told.text, 'sesame');
  for (const candidate of told.body.candidates) t.same(candidate.argv.slice(-2), [name, '***']);

  const guess = await watch(`*${name} s*`);
  const right = await watch(`*${name} *`);
  await eventually(async () => (await daemon.get(`/v1/watches/${right}`, other)).body.opened === 2);
  t.equal((await daemon.get(`/v1/watches/${guess}`, other)).body.opened, 0);
  const { events } = (await daemon.get('/v1/events?since=0&limit=1000', other)).body;
  t.notMatch(JSON.stringify(events), 'sesame');

  await daemon.upgrade();
  t.match(await find({ argv: `*${name} s*` }), { status: 404 }, 'nor after an upgrade');
  t.equal((await find({ argv: `*${name} *` })).status, 409);
  gate.open();
  gate.open();
});

t.test('an invalid matcher is refused', async (t) => {
  const daemon = await Daemon.start(t);
  for (const open of [
    { match: {} },
    { match: { argv: '' } },
    { match: { argv: 'x\0' } },
    { match: { argv: 'x'.repeat(4097) } },
    { match: { args: 'x' } },
    { match: { argv: 'x' }, pid: 1 },
    { match: { argv: 'x' }, inode: '1' },
    { match: 'x' },
    {},
  ])
    t.match(
      await daemon.post('/v1/handles', { open }),
      { status: 400, body: { errno: 'EINVAL' } },
      JSON.stringify(open),
    );
});
