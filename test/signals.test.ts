import { spawn as nodeSpawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readAll } from '../src/kernel/proc.ts';
import { Daemon, eventually, stateOf } from './support/harness.ts';

const daemon = await Daemon.start(t);
const pidsIn = (file: string): number[] => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number);

/** A process with descendants that have all written their pids down. */
async function family(script: string, count: number): Promise<{ id: string; pid: number; pids: number[] }> {
  const file = join(daemon.directory, `family-${Math.random()}`);
  const handle = await daemon.spawn(['sh', '-c', script], {}, { stdout: { file } });
  await eventually(() => pidsIn(file).length === count);
  return { id: handle.id, pid: handle.process.pid, pids: pidsIn(file) };
}

t.test('a signal reaches the process, by name or number, and an ended one is ESRCH', async (t) => {
  for (const [signal, name] of [
    ['SIGTERM', 'SIGTERM'],
    [9, 'SIGKILL'],
    ['SIGRTMIN+3', 'SIGRTMIN+3'],
    [37, 'SIGRTMIN+3'],
  ] as const) {
    const { id } = await daemon.spawn(['sleep', '100']);
    t.equal((await daemon.signal(id, 0)).status, 204, 'signal 0 only probes');
    t.equal((await daemon.signal(id, signal)).status, 204);
    t.match((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: name });
    t.match((await daemon.signal(id, signal)).body, { status: 404, errno: 'ESRCH', handle: id });
  }
  const { id } = await daemon.spawn(['sleep', '100']);
  for (const signal of ['TERM', 'SIGNOPE', 65, -1, 'SIGRTMIN+31', 1.5])
    t.match((await daemon.signal(id, signal)).body, { status: 400, errno: 'EINVAL' }, String(signal));
  t.match((await daemon.post(`/v1/handles/${id}/signal`, { signal: 9, scope: 'session' })).body, { errno: 'EINVAL' });
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('scope group reaches survivors after the leader has ended', async (t) => {
  const { id, pids } = await family('sleep 100 & echo $!; sleep 100 & echo $!', 2);
  await daemon.waitid(id);
  t.ok(pids.every((pid) => stateOf(pid) !== null));
  t.match((await daemon.signal(id, 'SIGTERM')).body, { errno: 'ESRCH' }, 'the process itself has ended');
  t.equal((await daemon.signal(id, 'SIGTERM', 'group')).status, 204);
  await eventually(() => pids.every((pid) => stateOf(pid) === null));
  t.match((await daemon.signal(id, 'SIGTERM', 'group')).body, { status: 404, errno: 'ESRCH' });
});

t.test('the group of a process that leads none is EINVAL', async (t) => {
  const { id, pids } = await family('sleep 100 & echo $!; wait', 1);
  const { body: member } = await daemon.post('/v1/handles', { open: { pid: pids[0] } });
  t.match((await daemon.signal(member.id, 'SIGTERM', 'group')).body, { status: 400, errno: 'EINVAL' });
  await daemon.signal(id, 'SIGKILL', 'group');
});

t.test('scope tree reaches every descendant, in whatever session', async (t) => {
  const script = 'setsid sh -c "sleep 100 & echo \\$!; echo \\$\\$; wait" & sleep 100 & echo $!; wait';
  const { id, pids } = await family(script, 3);
  t.equal((await daemon.signal(id, 'SIGKILL', 'tree')).status, 204);
  await eventually(() => pids.every((pid) => stateOf(pid) === null));
  t.match((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
  t.match((await daemon.signal(id, 'SIGKILL', 'tree')).body, { status: 404, errno: 'ESRCH' });
});

t.test('a tree that forks as fast as it can is gone after SIGKILL', async (t) => {
  for (let round = 0; round < 5; round += 1) {
    const script = 'f() { while :; do sleep 100 & sleep 0.001; done; }; f & f & echo $$; wait';
    const { id, pid } = await family(script, 1);
    await daemon.signal(id, 'SIGKILL', 'tree');
    t.match((await daemon.waitid(id)).body.outcome, { signal: 'SIGKILL' });
    // They have all been killed; the kernel may still be about it.
    await eventually(() => [...readAll().values()].every((stat) => stat.session !== pid || stat.state === 'Z'));
  }
});

t.test('terminate asks first, then kills, and answers when it has ended', async (t) => {
  const polite = await daemon.spawn(['sleep', '100']);
  t.match((await daemon.post(`/v1/handles/${polite.id}/terminate`)).body, {
    outcome: { reason: 'killed', signal: 'SIGTERM' },
  });
  t.match((await daemon.waitid(polite.id)).body, { outcome: { signal: 'SIGTERM' } }, 'nothing was collected');
  t.equal((await daemon.post(`/v1/handles/${polite.id}/terminate`, {})).status, 200, 'an ended one is fine');
  const stopped = await daemon.spawn(['sleep', '100']);
  await daemon.signal(stopped.id, 'SIGSTOP');
  t.match((await daemon.post(`/v1/handles/${stopped.id}/terminate`)).body, { outcome: { signal: 'SIGTERM' } });
  const { id, pids } = await family(
    'trap "" TERM; sh -c "trap \\"\\" TERM; echo \\$\\$; while :; do sleep 0.01; done" & wait; wait',
    1,
  );
  const answer = await daemon.post(`/v1/handles/${id}/terminate`, { graceMs: 50 });
  t.match(answer.body, {
    handle: id,
    outcome: { reason: 'killed', signal: 'SIGKILL' },
    siginfo: { code: 'CLD_KILLED' },
  });
  await eventually(() => pids.every((pid) => stateOf(pid) === null));
  t.match((await daemon.post(`/v1/handles/${id}/terminate`, { graceMs: -1 })).body, { errno: 'EINVAL' });
});

t.test('terminate reaches the group though its leader has ended, and of a foreign process only itself', async (t) => {
  const { id, pids } = await family('sleep 100 & echo $!', 1);
  await daemon.waitid(id);
  t.equal((await daemon.post(`/v1/handles/${id}/terminate`)).status, 200);
  await eventually(() => stateOf(pids[0]!) === null);
  const foreign = nodeSpawn('sh', ['-c', 'sleep 100 & echo $!; wait'], { detached: true });
  const child = Number(await new Promise((resolve) => foreign.stdout.once('data', resolve)));
  const { body: handle } = await daemon.post('/v1/handles', { open: { pid: foreign.pid } });
  const ended = await daemon.post(`/v1/handles/${handle.id}/terminate`);
  t.match(ended.body, { handle: handle.id, siginfo: null });
  t.ok(stateOf(child));
  process.kill(child, 'SIGKILL');
});

t.test('the daemon never signals itself', async (t) => {
  const { body: self } = await daemon.post('/v1/handles', { open: { pid: daemon.pid } });
  for (const scope of ['process', 'tree'])
    t.match((await daemon.signal(self.id, 'SIGTERM', scope)).body, { status: 403, errno: 'EPERM' }, scope);
  t.match((await daemon.post(`/v1/handles/${self.id}/terminate`)).body, { status: 403, errno: 'EPERM' });
  t.match((await daemon.request('DELETE', `/v1/handles/${self.id}?signal=SIGKILL`)).body, {
    status: 403,
    errno: 'EPERM',
  });
  t.equal((await daemon.get(`/v1/handles/${self.id}`)).status, 200, 'on EPERM the handle stays open');
  t.match((await daemon.waitid(self.id)).body, { status: 410, errno: 'ECHILD' });
});

t.test('an orphan comes to the daemon: adopted, then waitable, then exited', async (t) => {
  const { id, pids } = await family('sh -c "sleep 100 & echo \\$!; read x < /dev/zero" & echo $!; wait', 2);
  const [inner, middle] = [Math.max(...pids), Math.min(...pids)];
  const { body: orphan } = await daemon.post('/v1/handles', { open: { pid: inner } });
  t.equal(orphan.relation, 'foreign');
  t.match((await daemon.waitid(orphan.id, { options: ['WEXITED', 'WNOHANG'] })).body, { errno: 'ECHILD' });
  const socket = daemon.ws(`?handle=${orphan.id}`);
  await socket.first((frame) => frame.type === 'subscribed');
  process.kill(middle, 'SIGKILL');
  await socket.first((frame) => frame.event === 'adopted');
  t.equal((await daemon.get(`/v1/handles/${orphan.id}`)).body.relation, 'child');
  const wait = daemon.waitid(orphan.id);
  process.kill(inner, 'SIGTERM');
  t.match((await wait).body, { outcome: { reason: 'killed', signal: 'SIGTERM' } });
  await socket.first((frame) => frame.event === 'exited');
  t.same(
    socket.events.map((frame) => frame.event),
    ['opened', 'adopted', 'exited'],
  );
  socket.close();
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('orphans are reaped without anyone asking', async (t) => {
  const { id } = await daemon.spawn(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.05 &) ; done']);
  await daemon.waitid(id);
  const reaped = async (): Promise<number> =>
    Number(/waitd_orphans_reaped_total (\d+)/.exec((await daemon.get('/metrics')).text)?.[1]);
  await eventually(async () => (await reaped()) >= 10);
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('with --no-subreaper orphans go elsewhere', async (t) => {
  const other = await Daemon.start(t, { args: ['--no-subreaper'] });
  const file = join(other.directory, 'pid');
  const { id } = await other.spawn(['sh', '-c', '(sleep 100 & echo $!)'], {}, { stdout: { file } });
  await other.waitid(id);
  const [pid] = pidsIn(file);
  const { body: orphan } = await other.post('/v1/handles', { open: { pid } });
  t.equal(orphan.relation, 'foreign');
  process.kill(pid!, 'SIGKILL');
  t.equal(await other.stop(), 0);
});
