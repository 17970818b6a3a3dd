import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { childrenOf, Daemon, eventually, stateOf, temporaryDirectory, withFaults } from './support/harness.ts';

t.test('an upgrade preserves pid, children, flags, stops, groups and cursors', async (t) => {
  const daemon = await Daemon.start(t);
  const { pid, port } = daemon;
  const living = await daemon.spawn(['sleep', '100'], { nonblocking: true, labels: { a: 'b' } });
  const ending = await daemon.spawn(['sleep', '100']);
  const stopped = await daemon.spawn(['sleep', '100']);
  await daemon.signal(stopped.id, 'SIGSTOP');
  await eventually(async () => (await daemon.get(`/v1/handles/${stopped.id}`)).body.state === 'stopped');
  const leader = await daemon.spawn(['sh', '-c', 'sleep 100 & exit 3']);
  await daemon.waitid(leader.id);
  const twin = (await daemon.post('/v1/handles', { dup: living.id })).body;
  const foreign = (await daemon.post('/v1/handles', { open: { pid: process.pid } })).body;
  const parked = daemon.waitid(ending.id);
  const socket = daemon.ws();
  const { head } = await socket.first((frame) => frame.type === 'hello');
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));

  await daemon.upgrade();

  t.match(await parked, { status: 503, body: { errno: 'ESHUTDOWN' }, headers: { 'retry-after': '0' } });
  t.match(await socket.closed, { code: 1012 });
  t.equal(daemon.pid, pid);
  t.equal(daemon.port, port, 'the chosen port is kept');
  t.match(daemon.entries.at(-1), { msg: 'ready', upgraded: true });
  for (const { id } of [living, ending, stopped])
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', outcome: null });
  t.match((await daemon.get(`/v1/handles/${foreign.id}`)).body, { relation: 'foreign', state: 'running' });
  t.match((await daemon.waitid(living.id)).body, { errno: 'EAGAIN' }, 'the real flag');
  t.match(
    (await daemon.waitid(stopped.id, { options: ['WSTOPPED'] })).body,
    { siginfo: { code: 'CLD_STOPPED' } },
    'the unread stop',
  );
  t.match(
    (await daemon.waitid(stopped.id, { options: ['WSTOPPED', 'WNOHANG'] })).body,
    { siginfo: null },
    'it is read once',
  );
  await daemon.request('PATCH', `/v1/handles/${twin.id}`, { body: { nonblocking: false } });
  t.match((await daemon.get(`/v1/handles/${living.id}`)).body, { nonblocking: false }, 'a dup still shares');
  const { groupSignal } = await daemon.features();
  const expected = { status: groupSignal ? 204 : 501 };
  t.match(await daemon.signal(leader.id, 'SIGKILL', 'group'), expected, 'survivors of a group');
  t.match((await daemon.waitid(leader.id)).body, { errno: 'ECHILD' }, 'collected before');

  await daemon.signal(ending.id, 'SIGKILL');
  t.match((await daemon.waitid(ending.id)).body, { siginfo: { code: 'CLD_KILLED', status: 9 } });
  const resumed = daemon.ws(`?since=${head}`);
  await resumed.first((frame) => frame.event === 'exited' && frame.handle === ending.id);
  t.notOk(resumed.frames.some((frame) => frame.type === 'gap'));
  resumed.close();
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('the exit of a child during a replacement is reported once', async (t) => {
  const daemon = await Daemon.start(t);
  for (let round = 0; round < 3; round += 1) {
    const handles = await Promise.all(
      Array.from({ length: 30 }, (_, n) => daemon.spawn(['sh', '-c', `sleep 0.${10 + 2 * n}; exit ${n}`])),
    );
    await daemon.upgrade();
    await daemon.post('/v1/poll', { handles: handles.map(({ id }) => id), for: 'settled', until: 'all' });
    for (const [n, { id }] of handles.entries()) {
      t.match((await daemon.get(`/v1/handles/${id}`)).body, {
        relation: 'child',
        outcome: { reason: 'exited', exitCode: n },
      });
      const names = (await daemon.events(id)).map(({ event }) => event);
      t.same(names, ['opened', 'exited', 'settled']);
    }
  }
  t.equal(await daemon.stop(), 0);
});

t.test('no connection is refused during a replacement', async (t) => {
  const daemon = await Daemon.start(t);
  let done = false;
  let connected = 0;
  const knocking = (async () => {
    while (!done) {
      await new Promise<void>((resolve, reject) => {
        const socket = connect(daemon.socket, () => {
          connected += 1;
          socket.destroy();
          resolve();
        });
        socket.on('error', reject);
      });
      await setTimeout(10); // the kernel's queue holds 4096
    }
  })();
  for (let round = 0; round < 3; round += 1) await daemon.upgrade();
  done = true;
  await knocking;
  t.ok(connected > 0);
  t.equal(await daemon.stop(), 0);
  t.notOk(existsSync(daemon.socket));
});

t.test('two ports that the kernel chose are both kept', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--listen', 'tcp:127.0.0.1:0'] });
  const listening = (): string[] =>
    daemon.entries.flatMap(({ msg, address }) => (msg === 'listening' && address!.startsWith('tcp:') ? address! : []));
  const ports = listening();
  t.equal(new Set(ports).size, 2);
  await daemon.upgrade();
  t.same(listening(), [...ports, ...ports]);
  t.equal(await daemon.stop(), 0);
});

t.test('an upgrade to a command that would not start is refused', async (t) => {
  const directory = t.testdir();
  const tokens = join(directory, 'tokens');
  writeFileSync(tokens, 'a token-0123456789-abc\n', { mode: 0o600 });
  const daemon = await Daemon.start(t, { args: ['--tokens', tokens] });
  const { id } = await daemon.spawn(['sleep', '100']);
  chmodSync(tokens, 0o644);
  daemon.child.kill('SIGHUP');
  const { reason } = await daemon.logged('upgrade refused; this image keeps running');
  t.match(reason, /mode 0644.*chmod 0600/);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' });
  t.same(
    childrenOf(daemon.pid).filter((child) => stateOf(child) === 'Z'),
    [],
    'the rehearsal is reaped',
  );
  chmodSync(tokens, 0o600);
  await daemon.upgrade();
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' });
  t.equal(await daemon.stop(), 0);
});

t.test('SIGHUP and SIGTERM during an upgrade', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sleep', '100']);
  const from = daemon.entries.length;
  daemon.child.kill('SIGHUP');
  daemon.child.kill('SIGHUP');
  await daemon.logged('upgrading in place', from);
  daemon.child.kill('SIGHUP');
  await daemon.logged('ready', from);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' });
  daemon.child.kill('SIGHUP');
  await daemon.logged('ready', from);
  daemon.child.kill('SIGTERM');
  t.equal(await daemon.exited, 0, 'it stops');
});

t.test('the daemon survives an uncaught exception, five times a minute', async (t) => {
  const daemon = await Daemon.start(t, { env: withFaults(join(t.testdir(), 'fault')) });
  const { id } = await daemon.spawn(['sleep', '100']);
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  for (let failures = 1; failures <= 5; failures += 1) {
    const from = daemon.entries.length;
    daemon.child.kill('SIGUSR2');
    await daemon.logged('ready', from);
    if (failures === 1) t.match(await socket.closed, { code: 1012 });
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' });
    t.match(daemon.entries.slice(from), [{ level: 60, msg: 'internal error' }]);
  }
  daemon.child.kill('SIGUSR2');
  t.equal(await daemon.exited, 1);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.get(`/v1/handles/${id}`)).body, { relation: 'foreign', state: 'running' });
  await heir.signal(id, 'SIGKILL');
  t.equal(await heir.stop(), 0);
});

t.test('an upgrade is rehearsed with the handoff version, and refused if this code cannot read it', async (t) => {
  const directory = temporaryDirectory(t);
  const args = ['serve', '--check', '--state-dir', `${directory}/state`, '--listen', `unix:${directory}/s`];
  const env = { ...process.env, WAITD_HANDOFF_VERSION: '999' };
  const main = join(import.meta.dirname, '../src/main.ts');
  const stranger = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env });
  t.match(stranger, { status: 1, stderr: /hands over version 999/ });
});
