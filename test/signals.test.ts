import { spawn as nodeSpawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readAll, readStat } from '../src/kernel/proc.ts';
import { commandLineOf, Daemon, eventually, stateOf } from './support/harness.ts';
import { buildTwin } from './support/twin.ts';

const daemon = await Daemon.start(t);
const asRoot =
  process.getuid!() === 0 ? {} : { skip: 'only root can give up CAP_KILL and start another user’s process' };
const program = buildTwin(daemon.directory);
const pidsIn = (file: string): number[] => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number);

/** Starts a process with descendants that have all recorded their pids. */
async function family(script: string, count: number): Promise<{ id: string; pid: number; pids: number[] }> {
  const file = join(daemon.directory, `family-${Math.random()}`);
  const handle = await daemon.spawn(['sh', '-c', script], {}, { stdout: { file } });
  await eventually(() => pidsIn(file).length === count);
  return { id: handle.id, pid: handle.process.pid, pids: pidsIn(file) };
}

t.test('a signal reaches the process, by name or number; for an ended process it is ESRCH', async (t) => {
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

const { groupSignal } = await daemon.features();
const withGroups = groupSignal ? {} : { skip: 'signals to a group need Linux 6.9' };
const withoutGroups = groupSignal ? { skip: 'this kernel signals groups' } : {};

t.test('scope group is 501 where the kernel has no such signals', withoutGroups, async (t) => {
  const { id } = await daemon.spawn(['sleep', '100']);
  t.match((await daemon.signal(id, 'SIGTERM', 'group')).body, { status: 501, errno: 'EOPNOTSUPP', detail: /6\.9/ });
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('scope group reaches survivors after the leader has ended', withGroups, async (t) => {
  const { id, pids } = await family('sleep 100 & echo $!; sleep 100 & echo $!', 2);
  await daemon.waitid(id);
  t.ok(pids.every((pid) => stateOf(pid) !== null));
  t.match((await daemon.signal(id, 'SIGTERM')).body, { errno: 'ESRCH' }, 'the process itself has ended');
  t.equal((await daemon.signal(id, 'SIGTERM', 'group')).status, 204);
  await eventually(() => pids.every((pid) => stateOf(pid) === null));
  t.match((await daemon.signal(id, 'SIGTERM', 'group')).body, { status: 404, errno: 'ESRCH' });
});

t.test('scope group is EINVAL for a process that leads no group', withGroups, async (t) => {
  const { id, pids } = await family('sleep 100 & echo $!; wait', 1);
  const { body: member } = await daemon.post('/v1/handles', { open: { pid: pids[0] } });
  t.match((await daemon.signal(member.id, 'SIGTERM', 'group')).body, { status: 400, errno: 'EINVAL' });
  t.equal((await daemon.signal(id, 'SIGKILL', 'group')).status, 204);
});

t.test('scope tree reaches every descendant, in any session', async (t) => {
  const script = 'setsid sh -c "sleep 100 & echo \\$!; echo \\$\\$; wait" & sleep 100 & echo $!; wait';
  const { id, pids } = await family(script, 3);
  t.equal((await daemon.signal(id, 'SIGKILL', 'tree')).status, 204);
  await eventually(() => pids.every((pid) => stateOf(pid) === null));
  t.match((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
  t.match((await daemon.signal(id, 'SIGKILL', 'tree')).body, { status: 404, errno: 'ESRCH' });
});

t.test('SIGKILL ends a tree that forks as fast as it can', async (t) => {
  for (let round = 0; round < 5; round += 1) {
    const script = 'f() { while :; do sleep 100 & sleep 0.001; done; }; f & f & echo $$; wait';
    const { id, pid } = await family(script, 1);
    await daemon.signal(id, 'SIGKILL', 'tree');
    t.match((await daemon.waitid(id)).body.outcome, { signal: 'SIGKILL' });
    // All have been killed; the kernel may not have finished with them.
    await eventually(() => [...readAll().values()].every((stat) => stat.session !== pid || stat.state === 'Z'));
  }
});

const sessionMembers = (session: number): number[] =>
  [...readAll()].flatMap(([pid, stat]) => (stat.session === session && stat.state !== 'Z' ? [pid] : []));

t.test('a process whose leader thread has ended is alive, and a signal to its tree ends it', async (t) => {
  const { id, process: own } = await daemon.spawn([program, 'act', 'leader-leaves']);
  await eventually(() => stateOf(own.pid) === 'Z');
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.equal((await daemon.signal(id, 'SIGKILL', 'tree')).status, 204);
  t.match((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
});

t.test(
  'a background job of a shell with job control belongs to the tree, also after the shell has ended',
  async (t) => {
    const script = 'set -m; sleep 1000 & echo $!; disown';
    const file = join(daemon.directory, 'job');
    const handle = await daemon.spawn(['bash', '-c', script], {}, { stdout: { file } });
    await daemon.waitid(handle.id);
    const [job] = pidsIn(file);
    t.not(stateOf(job!), null);
    await daemon.upgrade();
    t.equal(
      (await daemon.signal(handle.id, 'SIGKILL', 'tree')).status,
      204,
      'it belongs to the session, and to another group',
    );
    await eventually(() => stateOf(job!) === null);
    t.match((await daemon.signal(handle.id, 'SIGKILL', 'tree')).body, { status: 404, errno: 'ESRCH' });
  },
);

for (const chain of ['chain', 'chain-of-groups'])
  t.test(`a ${chain} of processes that fork and exit at once is ended`, async (t) => {
    for (let round = 0; round < 5; round += 1) {
      const { id, process: own } = await daemon.spawn([program, 'act', chain]);
      await daemon.waitid(id);
      // On a busy machine new members may appear for longer than the daemon searches; it then reports this.
      await eventually(async () => {
        const { status } = await daemon.signal(id, 'SIGKILL', 'tree');
        if (status !== 204 && status !== 504) throw new Error(`status ${status}`);
        return status === 204;
      });
      await eventually(() => sessionMembers(own.pid).length === 0);
      t.match((await daemon.signal(id, 'SIGKILL', 'tree')).body, { status: 404, errno: 'ESRCH' });
    }
  });

t.test('an unrelated process in the group of a member gets no signal', async (t) => {
  // The job has its own group. The bystander has lost its parent, so that only the member links their group to the
  // shell's session. Its end orphans the group, and the kernel sends SIGHUP and SIGCONT to an orphaned group with a
  // stopped process.
  const file = join(daemon.directory, 'bystander');
  const lines = (): string[] => readFileSync(file, 'utf8').trim().split('\n');
  const pidOf = (name: string): number | undefined =>
    lines().flatMap((line) => (line.startsWith(`${name} `) ? [Number(line.split(' ')[1])] : []))[0];
  const script = (name: string, text: string): string => {
    const path = join(daemon.directory, name);
    writeFileSync(path, text);
    return path;
  };
  const traps = ['HUP', 'CONT', 'USR1'].map((name) => `trap "echo ${name}" ${name}`).join('; ');
  const bystander = script('bystander.sh', `${traps}; echo bystander $$; while :; do sleep 0.05; done`);
  const member = script('member.sh', `(sh ${bystander} &); sleep 1000 & echo child $!; echo member $$; wait`);
  const { id } = await daemon.spawn(
    ['bash', '-c', `set -m; sh ${member} & wait; sleep 1000`],
    {},
    { stdout: { file } },
  );
  await eventually(() => ['bystander', 'child', 'member'].every((name) => pidOf(name) !== undefined));
  await eventually(() => readStat(pidOf('bystander')!)?.parent === daemon.pid);
  const { body: opened } = await daemon.post('/v1/handles', { open: { pid: pidOf('member') } });
  t.equal((await daemon.signal(opened.id, 'SIGKILL', 'tree')).status, 204);
  await eventually(() => ['child', 'member'].every((name) => stateOf(pidOf(name)!) === null));
  process.kill(pidOf('bystander')!, 'SIGUSR1');
  await eventually(() => lines().includes('USR1'));
  t.notMatch(lines().join(), /HUP|CONT/);
  await daemon.signal(id, 'SIGKILL', 'tree');
  await eventually(() => stateOf(pidOf('bystander')!) === null);
});

t.test('members that may not be signalled are named, all others end, and none stays stopped', asRoot, async (t) => {
  const weak = await Daemon.start(t, { prefix: ['setpriv', '--bounding-set=-kill', '--inh-caps=-kill'] });
  const file = join(weak.directory, 'pids');
  const script = 'setpriv --reuid=65534 --clear-groups sleep 1000 & echo $!; sleep 1000 & echo $!; wait';
  const { id } = await weak.spawn(['sh', '-c', script], {}, { stdout: { file } });
  await eventually(() => pidsIn(file).length === 2);
  const [other, mine] = pidsIn(file) as [number, number];
  await eventually(() => commandLineOf(other).startsWith('sleep'));
  const refused = await weak.signal(id, 'SIGKILL', 'tree');
  t.match(refused.body, { status: 403, errno: 'EPERM', detail: `process ${other} (sleep)` });
  await eventually(() => stateOf(mine) === null);
  t.match((await weak.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
  t.equal(stateOf(other), 'S');
  process.kill(other, 'SIGKILL');
  t.equal(await weak.stop(), 0);
});

t.test('terminate sends SIGTERM, then SIGKILL, and answers when the process has ended', async (t) => {
  const polite = await daemon.spawn(['sleep', '100']);
  t.match((await daemon.post(`/v1/handles/${polite.id}/terminate`)).body, {
    outcome: { reason: 'killed', signal: 'SIGTERM' },
  });
  t.match((await daemon.waitid(polite.id)).body, { outcome: { signal: 'SIGTERM' } }, 'nothing was collected');
  t.equal((await daemon.post(`/v1/handles/${polite.id}/terminate`, {})).status, 200, 'an ended process is accepted');
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

t.test(
  'terminate reaches the group although its leader has ended, and only the process itself if it is foreign',
  withGroups,
  async (t) => {
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
  },
);

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

t.test('an orphan is adopted, becomes waitable, then exits', async (t) => {
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
  await socket.first((frame) => frame.event === 'settled');
  t.same(
    socket.events.map((frame) => frame.event),
    ['opened', 'adopted', 'exited', 'settled'],
  );
  socket.close();
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('orphans are reaped without a request', async (t) => {
  const { id } = await daemon.spawn(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.05 &) ; done']);
  await daemon.waitid(id);
  const reaped = async (): Promise<number> =>
    Number(/waitd_orphans_reaped_total (\d+)/.exec((await daemon.get('/metrics')).text)?.[1]);
  await eventually(async () => (await reaped()) >= 10);
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('with --no-subreaper orphans are reparented to another process', async (t) => {
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
