import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t, { type Test } from 'tap';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';
import { buildTwin } from './support/twin.ts';

const DAYS_24 = 24 * 24 * 3600 * 1000;
/** An ignored signal stays ignored over an exec. */
const ignoresTerm = 'trap "" TERM; echo $$; exec sleep 1000';

interface Deaf {
  id: string;
  pid: number;
  pids: number[];
}

/** Spawns a shell script that writes down a number of pids once it is ready. */
async function deaf(daemon: Daemon, script = ignoresTerm, count = 1): Promise<Deaf> {
  const file = join(daemon.directory, `pids-${Math.random()}`);
  const handle = await daemon.spawn(['sh', '-c', script], {}, { stdout: { file } });
  const pids = (): number[] => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number);
  await eventually(() => pids().length === count);
  return { id: handle.id, pid: handle.process.pid, pids: pids() };
}

/** Asks for a termination and hangs up once the process has got its SIGTERM. */
async function hangUp(daemon: Daemon, id: string, graceMs: number): Promise<void> {
  const abort = new AbortController();
  const answer = daemon.post(`/v1/handles/${id}/terminate`, { graceMs }, { signal: abort.signal }).catch(() => null);
  await eventually(async () => /^waitd_parked_calls [1-9]/m.test((await daemon.get('/metrics')).text));
  abort.abort();
  await answer;
  await eventually(async () => /^waitd_parked_calls 0$/m.test((await daemon.get('/metrics')).text));
}

t.test('the SIGKILL comes though its caller hangs up and the daemon is upgraded', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await deaf(daemon);
  await hangUp(daemon, id, 1500);
  await daemon.upgrade();
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.equal(await daemon.stop(), 0);
});

t.test('… though the daemon is killed: the next one sends it, at once if the time has passed', async (t) => {
  for (const hasPassed of [true, false]) {
    const daemon = await Daemon.start(t);
    const { id, pid } = await deaf(daemon);
    await hangUp(daemon, id, 1500);
    await daemon.kill();
    if (hasPassed) await new Promise((resolve) => setTimeout(resolve, 1500));
    const heir = await Daemon.start(t, { directory: daemon.directory });
    t.match((await heir.get(`/v1/handles/${id}`)).body.relation, 'foreign');
    await eventually(() => stateOf(pid) === null);
    t.equal(await heir.stop(), 0);
  }
});

t.test('… though the daemon stops and the handle is closed before, and it reaches the group too', async (t) => {
  const daemon = await Daemon.start(t);
  const script = `trap "exit 0" TERM; sh -c '${ignoresTerm}' & wait; exit 1`;
  const group = await deaf(daemon, script);
  const alone = await deaf(daemon);
  for (const { id } of [group, alone]) {
    await hangUp(daemon, id, 1000);
    t.equal((await daemon.request('DELETE', `/v1/handles/${id}`)).status, 204);
  }
  t.not(stateOf(group.pids[0]!), null);
  await eventually(() => stateOf(group.pids[0]!) === null && stateOf(alone.pid) === null);
  const last = await deaf(daemon);
  await hangUp(daemon, last.id, 500);
  t.equal((await daemon.request('DELETE', `/v1/handles/${last.id}`)).status, 204);
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await eventually(() => stateOf(last.pid) === null);
  t.equal(await heir.stop(), 0);
});

t.test('it is one deadline for each process: a shorter grace moves it, a longer one does not', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await deaf(daemon);
  const first = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 });
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  const second = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: 300 });
  await eventually(async () => /^waitd_parked_calls 2$/m.test((await daemon.get('/metrics')).text));
  const third = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 });
  for (const answer of [first, second, third])
    t.match(await answer, { status: 200, body: { outcome: { reason: 'killed', signal: 'SIGKILL' } } });
  t.equal(await daemon.stop(), 0);
});

t.test('500 of them with hang-ups take no descriptor, and nothing is left after the end', async (t) => {
  const daemon = await Daemon.start(t);
  const { id, pid } = await deaf(daemon);
  const warm = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 }).catch(() => null);
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  const before = daemon.descriptors;
  for (let round = 0; round < 10; round += 1) {
    const abort = new AbortController();
    const answers = Array.from({ length: 50 }, () =>
      daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 }, { signal: abort.signal }).catch(() => null),
    );
    await eventually(async () => /^waitd_parked_calls 51$/m.test((await daemon.get('/metrics')).text));
    abort.abort();
    await Promise.all(answers);
  }
  await eventually(() => daemon.descriptors <= before);
  const written = (): number => {
    const journal = new DatabaseSync(join(daemon.directory, 'state', 'journal.sqlite'), { readOnly: true });
    using close = new DisposableStack();
    close.defer(() => journal.close());
    return Number(journal.prepare('SELECT count(*) n FROM terminations').get()!.n);
  };
  process.kill(pid, 'SIGKILL');
  await warm;
  t.equal(await daemon.stop(), 0);
  t.equal(written(), 0, 'the promise is given up with the process');
});

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
  t.not(stateOf(member.pids[0]!), 'T', 'it is left as it was');
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

/** Has a process traced by one that never waits for it: it then cannot be reaped by its parent. */
async function trace(t: Test, program: string, pid: number): Promise<ChildProcess> {
  const tracer = spawn(program, ['trace', String(pid)], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => tracer.kill('SIGKILL'));
  const [said] = await Promise.race([once(tracer.stdout, 'data'), once(tracer, 'exit').then(() => [''])]);
  if (String(said).trim() !== 'traced') throw new Error('ptrace is not allowed here');
  return tracer;
}

/** Yama may let only ancestors trace a process. */
function whereTracingIsAllowed(): { skip?: string } {
  const file = '/proc/sys/kernel/yama/ptrace_scope';
  if (process.getuid!() === 0 || !existsSync(file) || readFileSync(file, 'utf8').trim() === '0') return {};
  return { skip: 'Yama lets only ancestors trace a process here' };
}

t.test(
  'a process that was killed and does not end is ETIMEDOUT, with its state',
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
    t.match((await wait).body, { outcome: { reason: 'killed' } }, 'its end is seen once the tracer lets go');
    t.equal(await daemon.stop(), 0);
  },
);

t.test(
  '--stop-children ends within its grace although a process is held by a tracer',
  whereTracingIsAllowed(),
  async (t) => {
    const daemon = await Daemon.start(t, { args: ['--stop-children=100ms'] });
    const program = buildTwin(temporaryDirectory(t));
    const held = await daemon.spawn(['sleep', '1000']);
    const other = await deaf(daemon);
    await trace(t, program, held.process.pid);
    daemon.child.kill('SIGTERM');
    await daemon.logged('some of what was spawned has not ended');
    t.equal(await daemon.exited, 0);
    t.equal(stateOf(other.pid), null);
  },
);
