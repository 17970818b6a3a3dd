import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { closedToOthers } from './support/command.ts';
import {
  childrenOf,
  commandLineOf,
  Daemon,
  type DaemonOptions,
  eventually,
  type Response,
  temporaryDirectory,
} from './support/harness.ts';

const root = process.getuid!() === 0;
/** Options of tests that need root. */
const asRoot = root ? {} : { skip: 'needs root' };

const ENDED = { prefer: 'wait=30' };

/** Spawns, waits for the exit, and returns the output. */
async function run(
  daemon: Daemon,
  argv: unknown[],
  more: object = {},
  tcp = false,
): Promise<{ status: number; text: string; body: Response['body'] }> {
  const { status, body } = await daemon.post(
    '/v1/handles',
    { spawn: { argv, stdout: 'capture', ...more } },
    { headers: ENDED, tcp },
  );
  if (status !== 201) return { status, text: '', body };
  return { status, text: (await daemon.get(`/v1/handles/${body.id}/stdout`, { tcp })).text, body };
}

/** Returns a process's own view of its attributes. */
async function look(daemon: Daemon, more: object, tcp = false): Promise<Record<string, string>> {
  const { text, body, status } = await run(daemon, ['cat', '/proc/self/status', '/proc/self/limits'], more, tcp);
  if (status !== 201) throw new Error(JSON.stringify(body));
  return Object.fromEntries(
    text.split('\n').map((line) => {
      const [name = '', ...rest] = line.startsWith('Max ') ? line.split(/ {2,}/) : line.split(':\t');
      return [name, rest.join(' ').replaceAll('\t', ' ').trim()];
    }),
  );
}

/** Starts an unprivileged daemon in its own directory. */
async function unprivileged(t: Test, prefix: string[], options: DaemonOptions = {}): Promise<Daemon> {
  const directory = temporaryDirectory(t);
  if (root) chownSync(directory, 65534, 65534);
  return Daemon.start(t, { directory, prefix, ...options });
}

t.test('a spawn as a user has its ids, groups and home, and nothing of the daemon’s', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  for (const user of ['nobody', 65534]) {
    const seen = await look(daemon, { user });
    t.match(seen, { Uid: '65534 65534 65534 65534', Gid: '65534 65534 65534 65534' });
    t.match(seen, { CapEff: /^0+$/, CapPrm: /^0+$/, CapInh: /^0+$/, CapAmb: /^0+$/ });
  }
  t.equal(
    (await look(daemon, { user: 'daemon' })).Groups,
    execFileSync('id', ['-G', 'daemon'], { encoding: 'utf8' }).trim(),
  );
  t.equal((await look(daemon, { user: 'nobody', group: 'daemon' })).Gid, '1 1 1 1');
  t.match(await look(daemon, { group: 'daemon' }), { Uid: '0 0 0 0', Gid: '1 1 1 1', Groups: '' });
  t.match(await look(daemon, { user: 4242, group: 4243 }), { Uid: '4242 4242 4242 4242', Gid: '4243 4243 4243 4243' });
  const home = execFileSync('getent', ['passwd', 'daemon'], { encoding: 'utf8' }).split(':')[5];
  t.equal((await run(daemon, ['sh', '-c', 'echo $HOME'], { user: 'daemon' })).text, `${home}\n`);
  t.same((await look(daemon, { user: 'root' })).Uid, '0 0 0 0', 'it is the same user');
});

t.test('limits, nice, umask and noNewPrivileges', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  for (const more of [{}, { user: 'nobody' }]) {
    const seen = await look(daemon, {
      ...more,
      limits: { nofile: 64, core: { soft: 0, hard: 4096 }, cpu: 'unlimited' },
      nice: 7,
      umask: '027',
      noNewPrivileges: true,
    });
    t.match(seen, {
      'Max open files': '64 64 files',
      'Max core file size': '0 4096 bytes',
      Umask: '0027',
      NoNewPrivs: '1',
    });
    t.equal((await run(daemon, ['nice'], { ...more, nice: 7 })).text, '7\n');
  }
  t.equal((await run(daemon, ['nice'], { user: 'nobody', nice: -5 })).text, '-5\n', 'before the rights are dropped');
});

t.test('a child has only its own descriptors, environment and signals', async (t) => {
  const daemon = await Daemon.start(t, { env: { SECRET_OF_THE_DAEMON: 'x' } });
  const contexts = [
    {},
    { umask: '022' },
    ...(root ? [{ user: 'nobody' }, { user: 'nobody', nice: 3, limits: { nofile: 100 } }] : []),
  ];
  for (const context of contexts) {
    const files = await run(daemon, ['ls', '-1', '/proc/self/fd'], context);
    t.same(files.text.trim().split('\n').slice(0, 4), ['0', '1', '2', '3'], 'the last belongs to the listing itself');
    t.equal(files.text.trim().split('\n').length, 4);
    const env = await run(daemon, ['env'], { ...context, env: { GIVEN: 'it\'s\n$HOME `x` \\ "y"' } });
    const home = 'user' in context ? '/nonexistent' : /^HOME=(.*)$/m.exec(env.text)?.[1];
    t.same(
      env.text
        .trimEnd()
        .split('\n')
        .filter((line) => !line.startsWith('_='))
        .sort(),
      [
        '$HOME `x` \\ "y"',
        "GIVEN=it's",
        `HOME=${home}`,
        'LANG=C.UTF-8',
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      ].sort(),
    );
    const seen = await look(daemon, context);
    t.equal(seen.SigBlk, '0000000000000000');
    t.ok([0n, 0x180000000n].includes(BigInt(`0x${seen.SigIgn}`)), 'except the two signals of glibc');
    const { text, body } = await run(daemon, ['sh', '-c', 'echo $$; cut -d" " -f5,6 /proc/$$/stat'], context);
    t.equal(
      text,
      `${body.process.pid}\n${body.process.pid} ${body.process.pid}\n`,
      'the same pid, and it leads a session',
    );
  }
});

t.test('a wrong program is a problem, not a handle that exits with 127', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const at = (name: string): string => join(directory, name);
  writeFileSync(at('text'), 'echo no interpreter\n', { mode: 0o755 });
  writeFileSync(at('lost'), '#!/no/such/interpreter\n', { mode: 0o755 });
  writeFileSync(at('mine'), '#!/bin/sh\n', { mode: 0o700 });
  writeFileSync(at('fine'), '#!/bin/sh\nexit 127\n', { mode: 0o755 });
  mkdirSync(at('private'), { mode: 0o700 });
  for (const [spawn, status, errno] of [
    [{ argv: ['no-such-program'] }, 422, 'ENOENT'],
    [{ argv: [at('nothing')] }, 422, 'ENOENT'],
    [{ argv: [at('text')] }, 422, 'ENOEXEC'],
    [{ argv: [at('lost')] }, 422, 'ENOENT'],
    [{ argv: [at('mine')] }, 403, 'EACCES'],
    [{ argv: ['true'], cwd: at('private') }, 403, 'EACCES'],
    [{ argv: ['true'], cwd: at('nothing') }, 422, 'ENOENT'],
    [{ argv: ['true'], user: 'no-such-user' }, 422, 'ENOENT'],
    [{ argv: ['true'], user: 4242 }, 422, 'ENOENT'],
    [{ argv: ['true'], group: 'no-such-group' }, 422, 'ENOENT'],
    [{ argv: ['true'], limits: { nofile: { soft: 2, hard: 1 } } }, 400, 'EINVAL'],
    [{ argv: ['true'], cgroup: {} }, 501, 'EOPNOTSUPP'],
    [{ argv: ['true'], limits: { nonsense: 1 } }, 400, 'EINVAL'],
    [{ argv: ['true'], nice: 20 }, 400, 'EINVAL'],
    [{ argv: ['true'], umask: '9' }, 400, 'EINVAL'],
  ] as const)
    t.match(
      await daemon.post('/v1/handles', { spawn: { user: 'nobody', ...spawn } }),
      { status, body: { errno } },
      JSON.stringify(spawn),
    );
  t.match((await run(daemon, [at('fine')], { user: 'nobody' })).body.outcome, { reason: 'exited', exitCode: 127 });
  t.equal((await daemon.get('/v1/handles')).body.handles.length, 1);
  await eventually(() => childrenOf(daemon.pid).length === 0);
  const before = daemon.descriptors;
  for (let n = 0; n < 20; n += 1) await daemon.post('/v1/handles', { spawn: { argv: [at('mine')], user: 'nobody' } });
  await eventually(() => daemon.descriptors <= before);
});

t.test('input of a client takes effect only after the privileges are dropped', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o777);
  const source = join(directory, 'preload.c');
  const library = join(directory, 'preload.so');
  writeFileSync(
    source,
    `#include <stdio.h>
    #include <unistd.h>
    __attribute__((constructor)) static void load(void) {
      char path[200]; snprintf(path, sizeof path, "${directory}/as-%d", geteuid());
      FILE *file = fopen(path, "w"); if (file) fclose(file);
    }`,
  );
  execFileSync('gcc', ['-shared', '-fPIC', '-o', library, source]);
  await run(daemon, ['true'], { user: 'nobody', nice: 1, limits: { nofile: 100 }, env: { LD_PRELOAD: library } });
  t.same(
    readdirSync(directory).filter((name) => name.startsWith('as-')),
    ['as-65534'],
  );
});

t.test('output, stdin, keys and waits work as usual; a hundred at once', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const stdin = { text: 'for nobody' };
  t.equal((await run(daemon, ['cat'], { user: 'nobody', stdin })).text, 'for nobody');
  const keyed = { headers: { 'idempotency-key': 'once' } };
  const body = { spawn: { argv: ['sh', '-c', 'exit 5'], user: 'nobody' }, nonblocking: true };
  const [first, second] = await Promise.all([
    daemon.post('/v1/handles', body, keyed),
    daemon.post('/v1/handles', body, keyed),
  ]);
  t.equal(first.text, second.text);
  await daemon.post('/v1/poll', { handles: [first.body.id] });
  t.match((await daemon.waitid(first.body.id)).body.outcome, { exitCode: 5 });
  const many = await Promise.all(
    Array.from({ length: 100 }, (_, n) => run(daemon, ['sh', '-c', `exit ${n}`], { user: 'nobody', nice: 1 })),
  );
  t.same(
    many.map(({ body: { outcome } }) => outcome.exitCode),
    Array.from({ length: 100 }, (_, n) => n),
  );
  await eventually(() => childrenOf(daemon.pid).length === 0);
});

t.test('a secret argument is visible only in the process', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--log-level', 'trace'] });
  const secret = 'sesame-open-yourself';
  const argv = ['sh', '-c', 'test "$1" = sesame-"open-yourself" && exit 9', 'sh', { secret }];
  for (const more of [{}, { umask: '022' }]) {
    const options = { headers: { ...ENDED, 'idempotency-key': JSON.stringify(more) } };
    const answer = await daemon.post('/v1/handles', { spawn: { argv, ...more } }, options);
    t.match(answer.body.outcome, { exitCode: 9 });
    t.same(answer.body.process.argv.slice(3), ['sh', '***']);
    for (const path of [
      `/v1/handles/${answer.body.id}`,
      `/v1/events?handle=${answer.body.id}`,
      '/v1/handles',
      '/metrics',
    ])
      t.notMatch((await daemon.get(path)).text, secret, path);
  }
  const problem = await daemon.post('/v1/handles', { spawn: { argv: ['/no/such', { secret }] } });
  t.equal(problem.status, 422);
  t.notMatch(problem.text, secret);
  t.notMatch((await daemon.post('/v1/handles', { spawn: { argv: ['true', { secret, and: 1 }] } })).text, secret);
  await daemon.stop();
  t.notMatch(daemon.log.join('\n'), secret);
  const state = join(daemon.directory, 'state');
  for (const name of readdirSync(state, { withFileTypes: true }))
    if (name.isFile()) t.notMatch(readFileSync(join(state, name.name), 'latin1'), secret, name.name);
});

t.test(
  'a daemon without privileges restores a process that several handles hold',
  { skip: closedToOthers },
  async (t) => {
    const prefix = root ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
    const daemon = await unprivileged(t, prefix);
    const tcp = { tcp: true };
    const { body: first } = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '1000'] } }, tcp);
    const { pid } = first.process;
    const { body: second } = await daemon.post('/v1/handles', { open: { pid }, nonblocking: true }, tcp);
    await daemon.kill();
    const heir = await Daemon.start(t, { directory: daemon.directory, prefix });
    for (const { id, nonblocking } of [first, second])
      t.match((await heir.get(`/v1/handles/${id}`, tcp)).body, { state: 'running', process: { pid }, nonblocking });
    await heir.post(`/v1/handles/${first.id}/signal`, { signal: 'SIGKILL' }, tcp);
    const { ready } = (await heir.post('/v1/poll', { handles: [first.id, second.id], until: 'all' }, tcp)).body;
    t.equal(ready.length, 2);
    await heir.kill(); // as another user it could not write its report for the test runner
  },
);

t.test('a daemon without privileges can lower limits, and cannot switch users', { skip: closedToOthers }, async (t) => {
  const prefixes = root
    ? [
        ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
        ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'unshare', '-Ur'],
      ]
    : [[]];
  for (const prefix of prefixes) {
    const daemon = await unprivileged(t, prefix);
    const namespaced = prefix.includes('unshare');
    // Over TCP, because the policy does not admit this test's uid.
    const own = namespaced ? 0 : root ? 65534 : process.getuid!();
    const seen = await look(
      daemon,
      {
        user: own,
        limits: { nofile: 32 },
        nice: Math.min(getPriority() + 4, 19),
        umask: '077',
        noNewPrivileges: true,
      },
      true,
    );
    t.match(seen, { 'Max open files': '32 32 files', NoNewPrivs: '1', Umask: '0077' });
    const refused = { status: 403, body: { errno: 'EPERM' } };
    const spawn = (more: object): Promise<Response> =>
      daemon.post('/v1/handles', { spawn: { argv: ['true'], ...more } }, { tcp: true });
    t.match(
      await spawn({ user: namespaced ? 'daemon' : 'root' }),
      refused,
      'also in a namespace, which has no such user',
    );
    t.match(await spawn({ nice: -20 }), refused);
    t.match(await spawn({ limits: { nofile: 2 ** 30 } }), refused);
    t.equal((await daemon.get('/v1/handles', { tcp: true })).body.handles.length, 1);
    await eventually(() => childrenOf(daemon.pid).length === 0);
    t.same((await run(daemon, ['ls', '-1', '/proc/self/fd'], {}, true)).text, '0\n1\n2\n3\n');
    await daemon.stop();
  }
});

t.test('a policy limits the users of a spawn', asRoot, async (t) => {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy');
  const token = 'token-0123456789abcdef';
  const rule = { programs: ['/bin/cat'], users: ['nobody', 'daemon'] };
  writeFileSync(policy, JSON.stringify({ clients: { a: { tokens: [`sha256:${hashOf(token)}`], spawn: rule } } }));
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  const spawn = async (more: object): Promise<Response> =>
    daemon.post(
      '/v1/handles',
      { spawn: { argv: ['cat', '/proc/self/status'], stdout: 'capture', ...more } },
      { headers: { ...ENDED, authorization: `Bearer ${token}` } },
    );
  for (const [more, uid] of [
    [{}, 65534],
    [{ user: 'daemon' }, 1],
    [{ user: 1, group: 'daemon' }, 1],
  ] as const) {
    const { body } = await spawn(more);
    const { text } = await daemon.get(`/v1/handles/${body.id}/stdout`, {
      headers: { authorization: `Bearer ${token}` },
    });
    t.match(text, `Uid:\t${uid}\t${uid}\t${uid}\t${uid}`);
  }
  for (const more of [
    { user: 'root' },
    { user: 0 },
    { user: 'bin' },
    { user: 'no-such' },
    { group: 'root' },
    { user: 'daemon', group: 'shadow' },
  ])
    t.match(await spawn(more), { status: 403, body: { errno: 'EPERM' } }, JSON.stringify(more));
});

t.test('a daemon that dies or is replaced while a program starts leaves no half-started process', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const spawning = Array.from({ length: 30 }, () =>
    daemon.post('/v1/handles', { spawn: { argv: ['sleep', '1000'], user: 'nobody' } }).catch(() => null),
  );
  await eventually(() => childrenOf(daemon.pid).length > 0);
  const children = new Set<number>();
  for (const pid of childrenOf(daemon.pid)) children.add(pid);
  await daemon.kill();
  await Promise.all(spawning);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  const left = [...children].filter((pid) => commandLineOf(pid).startsWith('sleep'));
  const found = (await heir.get('/v1/handles?state=running&limit=1000')).body.handles;
  for (const pid of left)
    t.ok(
      found.some((handle: { process: { pid: number } }) => handle.process.pid === pid),
      `${pid} has a handle`,
    );
  const upgraded = Array.from({ length: 30 }, () =>
    heir.post('/v1/handles', { spawn: { argv: ['sleep', '1000'], user: 'nobody' } }).catch(() => null),
  );
  await heir.upgrade();
  const answered = (await Promise.all(upgraded)).filter((answer) => answer?.status === 201);
  const { handles } = (await heir.get('/v1/handles?state=running&limit=1000')).body;
  for (const answer of answered) t.ok(handles.some(({ id }: { id: string }) => id === answer?.body.id));
  for (const { id, process: held } of handles) {
    t.match(commandLineOf(held.pid), /^sleep/);
    await heir.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
  }
});
