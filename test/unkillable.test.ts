import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { deaf, ignoresTerm } from './support/deaf.ts';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';
import { buildTwin } from './support/twin.ts';

const asRoot =
  process.getuid!() === 0 ? {} : { skip: 'only root can give up CAP_KILL and start another user’s process' };

t.test('a process that the daemon may not signal is named, and the others are killed', asRoot, async (t) => {
  const daemon = await Daemon.start(t, { prefix: ['setpriv', '--bounding-set=-kill', '--inh-caps=-kill'] });
  const other = 'setpriv --reuid=65534 --clear-groups sleep 1000';
  const isOther = (pid: number): boolean =>
    /^Name:\tsleep\n.*\nUid:\t65534/s.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  const member = await deaf(daemon, `${other} & echo $!; ${ignoresTerm}`, 2);
  await eventually(() => isOther(member.pids[0]!));
  const refused = await daemon.post(`/v1/handles/${member.id}/terminate`, { graceMs: 100 });
  t.match(refused.body, { status: 403, errno: 'EPERM', handle: member.id });
  t.match(refused.body.detail, new RegExp(`process ${member.pids[0]} \\(sleep\\)`));
  t.not(stateOf(member.pids[0]!), 'T', 'it is left unchanged');
  await eventually(() => stateOf(member.pid) === null);
  const leader = await deaf(daemon, `sh -c '${ignoresTerm}' & sleep 0.2; exec ${other}`);
  await eventually(() => isOther(leader.pid));
  t.match((await daemon.post(`/v1/handles/${leader.id}/terminate`, { graceMs: 100 })).body, {
    status: 403,
    errno: 'EPERM',
    detail: new RegExp(`process ${leader.pid} \\(sleep\\)`),
  });
  await eventually(() => ['Z', null].includes(stateOf(leader.pids[0]!)));
  const alone = await daemon.spawn(['setpriv', '--reuid=65534', '--clear-groups', 'sleep', '1000']);
  await eventually(() => isOther(alone.process.pid));
  t.match((await daemon.post(`/v1/handles/${alone.id}/terminate`)).body, {
    status: 403,
    errno: 'EPERM',
    detail: new RegExp(`process ${alone.process.pid} \\(sleep\\)`),
  });
  for (const pid of [member.pids[0]!, leader.pid, alone.process.pid]) process.kill(pid, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

/** Makes a tracer that never waits trace a process, so that the parent cannot reap it. */
async function trace(t: Test, program: string, pid: number): Promise<ChildProcess> {
  const tracer = spawn(program, ['trace', String(pid)], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => tracer.kill('SIGKILL'));
  const [said] = await Promise.race([once(tracer.stdout, 'data'), once(tracer, 'exit').then(() => [''])]);
  if (String(said).trim() !== 'traced') throw new Error('ptrace is not permitted here');
  return tracer;
}

/** Yama may let only ancestors trace a process. */
function whereTracingIsAllowed(): { skip?: string } {
  const file = '/proc/sys/kernel/yama/ptrace_scope';
  if (process.getuid!() === 0 || !existsSync(file) || readFileSync(file, 'utf8').trim() === '0') return {};
  return { skip: 'Yama lets only ancestors trace a process here' };
}

t.test(
  'a process that survives SIGKILL is reported as ETIMEDOUT, with its state',
  whereTracingIsAllowed(),
  async (t) => {
    const daemon = await Daemon.start(t);
    const program = buildTwin(temporaryDirectory(t));
    const { id, process: own } = await daemon.spawn(['sleep', '1000']);
    const tracer = await trace(t, program, own.pid);
    const answer = await daemon.post(`/v1/handles/${id}/terminate`, { graceMs: 100 });
    t.match(answer, { status: 504, body: { errno: 'ETIMEDOUT', handle: id } });
    t.match(answer.body.detail, /state [Zt] /);
    t.match(answer.body.detail, `its tracer, process ${tracer.pid} (twin)`);
    const wait = daemon.waitid(id);
    tracer.kill('SIGKILL');
    t.match((await wait).body, { outcome: { reason: 'killed' } }, 'its exit is reported once the tracer detaches');
    t.equal(await daemon.stop(), 0);
  },
);

t.test(
  '--stop-children ends within its grace although a tracer holds a process',
  whereTracingIsAllowed(),
  async (t) => {
    const daemon = await Daemon.start(t, { args: ['--stop-children=100ms'] });
    const program = buildTwin(temporaryDirectory(t));
    const held = await daemon.spawn(['sleep', '1000']);
    const other = await deaf(daemon);
    await trace(t, program, held.process.pid);
    daemon.child.kill('SIGTERM');
    await daemon.logged('some spawned processes have not ended');
    t.equal(await daemon.exited, 0);
    t.equal(stateOf(other.pid), null);
  },
);
