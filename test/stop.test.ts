import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { caughtBy, commandLineOf, Daemon, eventually, stateOf } from './support/harness.ts';

t.test('SIGTERM leaves spawned processes running, and the next daemon finds them', async (t) => {
  const daemon = await Daemon.start(t);
  const { id, process: child } = await daemon.spawn(['sleep', '100']);
  const parked = daemon.waitid(id);
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  t.equal(await daemon.stop(), 0);
  t.match(await parked, { status: 503, body: { errno: 'ESHUTDOWN' }, headers: { 'retry-after': '1' } });
  t.match(await socket.closed, { code: 1001 });
  t.equal(stateOf(child.pid), 'S');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.get(`/v1/handles/${id}`)).body, { relation: 'foreign', state: 'running' });
  await heir.signal(id, 'SIGKILL');
  t.equal(await heir.stop(), 0);
});

t.test('--stop-children ends children first, and all clients receive the outcome', async (t) => {
  for (const args of [['--stop-children=300ms'], ['--stop-children']]) {
    const daemon = await Daemon.start(t, { args });
    const grace = args[0]!.includes('=');
    const deaf = grace
      ? await daemon.spawn(
          ['sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 100; done'],
          {},
          { stdout: 'capture' },
        )
      : null;
    if (deaf) await eventually(async () => (await daemon.get(`/v1/handles/${deaf.id}/stdout`)).text === 'deaf\n');
    const orderly = await daemon.spawn(
      ['sh', '-c', 'trap "exit 3" TERM; echo up; while :; do sleep 0.05; done'],
      {},
      {
        stdout: 'capture',
      },
    );
    await eventually(async () => (await daemon.get(`/v1/handles/${orderly.id}/stdout`)).text === 'up\n');
    const stopped = await daemon.spawn(['sleep', '100']);
    await daemon.signal(stopped.id, 'SIGSTOP');
    const foreign = (await daemon.post('/v1/handles', { open: { pid: process.pid } })).body;
    const socket = daemon.ws();
    await socket.first(({ type }) => type === 'hello');
    const parked = daemon.waitid(stopped.id);
    await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
    daemon.child.kill('SIGTERM');
    if (grace) {
      await daemon.logged('stopping');
      const refused = await daemon.post('/v1/handles', { spawn: { argv: ['true'] } });
      t.match(refused, { status: 503, body: { errno: 'ESHUTDOWN' } }, 'no new spawns in the meantime');
    }
    t.match(
      (await parked).body,
      { outcome: { reason: 'killed', signal: 'SIGTERM' } },
      'requests are served until then',
    );
    t.equal(await daemon.exited, 0);
    t.match(await socket.closed, { code: 1001 });
    const told = socket.events.filter(({ event }) => event === 'exited');
    t.equal(told.length, grace ? 3 : 2);
    const heir = await Daemon.start(t, { directory: daemon.directory });
    const outcome = async (id: string): Promise<unknown> => (await heir.get(`/v1/handles/${id}`)).body.outcome;
    t.same(await outcome(orderly.id), { reason: 'exited', exitCode: 3 });
    t.same(await outcome(stopped.id), { reason: 'killed', signal: 'SIGTERM' });
    if (deaf) t.same(await outcome(deaf.id), { reason: 'killed', signal: 'SIGKILL' });
    t.equal(await outcome(foreign.id), null, 'a process that was only opened is left alone');
    t.equal(await heir.stop(), 0);
  }
});

t.test('a second signal stops the daemon at once', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--stop-children=100s'] });
  const { id, process: child } = await daemon.spawn(
    ['sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 100; done'],
    {},
    {
      stdout: 'capture',
    },
  );
  await eventually(async () => (await daemon.get(`/v1/handles/${id}/stdout`)).text === 'deaf\n');
  daemon.child.kill('SIGTERM');
  await daemon.logged('stopping');
  daemon.child.kill('SIGTERM');
  t.equal(await daemon.exited, 1);
  t.ok(readFileSync(join('/proc', String(child.pid), 'comm'), 'utf8'));
  process.kill(-child.pid, 'SIGKILL');
});

/**
 * Starts a daemon, and waits until its first module has installed its handlers. The test runner's modules, which
 * install some too, are left out.
 */
async function aboutToStart(t: Test): Promise<Daemon> {
  const daemon = Daemon.begin(t, { prefix: ['sh', '-c', 'ulimit -c 0; unset NODE_OPTIONS; exec "$0" "$@"'] });
  await eventually(() => caughtBy(daemon.pid).has('SIGHUP'));
  return daemon;
}

for (const signal of ['SIGQUIT', 'SIGUSR2', 'SIGALRM'] as const)
  t.test(`${signal}, which has no handler, has its default effect on a daemon, also during its start`, async (t) => {
    for (const begin of [aboutToStart, (t: Test) => Daemon.start(t, { prefix: ['prlimit', '--core=0'] })]) {
      const daemon = await begin(t);
      daemon.child.kill(signal);
      t.equal(await daemon.exited, null);
      t.equal(daemon.child.signalCode, signal);
    }
  });

for (const [when, begin] of [
  ['a running daemon', (t: Test): Promise<Daemon> => Daemon.start(t)],
  ['a starting daemon', aboutToStart],
  [
    'a daemon with --disable-sigusr1',
    (t: Test): Promise<Daemon> => Daemon.start(t, { env: { NODE_OPTIONS: '--disable-sigusr1' } }),
  ],
] as const)
  t.test(`SIGUSR1 opens no debugger, and a log line says that it is ignored: ${when}`, async (t) => {
    const daemon = await begin(t);
    daemon.child.kill('SIGUSR1');
    t.match(await daemon.logged('SIGUSR1 ignored: the inspector is disabled'), { level: 40 });
    t.notMatch(daemon.log.join('\n'), /Debugger/);
    await daemon.ready();
    t.equal(await daemon.stop(), 0);
  });

t.test('an upgrade in place is shielded from SIGUSR1 before its first line, however often', async (t) => {
  const daemon = await Daemon.start(t);
  const [node, ...command] = commandLineOf(daemon.pid).split('\0');
  for (let times = 0; times < 2; times += 1) {
    await daemon.upgrade();
    t.same(commandLineOf(daemon.pid).split('\0'), [node, '--disable-sigusr1', ...command]);
  }
  daemon.child.kill('SIGUSR1');
  await daemon.logged('SIGUSR1 ignored: the inspector is disabled');
  t.equal(await daemon.stop(), 0);
});
