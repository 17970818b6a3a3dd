import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { commandLineOf, Daemon, eventually, Gate, stateOf, temporaryDirectory } from './support/harness.ts';

/** The mount point of cgroups version 2 on this machine. */
const TREE = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')));

function writable(): boolean {
  if (TREE === undefined) return false;
  try {
    rmdirSync(mkdtempSync(join(TREE, 'waitd-test-')));
    return true;
  } catch {
    return false;
  }
}
const real = writable() ? {} : { skip: 'no cgroup (v2) can be created here' };

/** Creates a cgroup for the test. */
function cgroupFor(t: Test): string {
  const path = mkdtempSync(join(TREE!, 'waitd-test-'));
  t.teardown(() =>
    eventually(() => readdirSync(path, { withFileTypes: true }).every((entry) => !entry.isDirectory())).then(() =>
      rmdirSync(path),
    ),
  );
  return path;
}

const made = (directory: string): string[] =>
  readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);

t.test('a spawn can have a new cgroup, which is removed when it is empty', real, async (t) => {
  const directory = cgroupFor(t);
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory] });
  const gate = new Gate(t);
  const argv = ['sh', '-c', `cat /proc/self/cgroup; read -r _ < ${gate.path}`];
  const handle = await daemon.spawn(argv, {}, { stdout: 'capture', cgroup: {} });
  const [name = ''] = made(directory);
  t.equal(made(directory).length, 1);
  const inIt = readFileSync(join(directory, name, 'cgroup.procs'), 'utf8')
    .trim()
    .split('\n');
  t.ok(inIt.includes(String(handle.process.pid)));
  await eventually(async () => (await daemon.get(`/v1/handles/${handle.id}/stdout`)).text.includes(`/${name}\n`));
  gate.open();
  await daemon.waitid(handle.id);
  await eventually(() => made(directory).length === 0);
  const others = await Promise.all([
    daemon.spawn(['true'], {}, { cgroup: {} }),
    daemon.spawn(['true'], {}, { cgroup: {} }),
  ]);
  for (const { id } of others)
    t.match((await daemon.waitid(id)).body.outcome, { exitCode: 0 }, 'never one that was killed');
  t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['/no/such'], cgroup: {} } })).status, 422);
  await eventually(() => made(directory).length === 0);
});

t.test('scope tree reaches every process in it, and SIGKILL all at once', real, async (t) => {
  const directory = cgroupFor(t);
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory] });
  // A process that leaves its parents, its session and its group.
  const script = 'setsid sh -c "setsid sleep 1000 & setsid sleep 1001 &" & wait; sleep 1002';
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    const { id } = await daemon.spawn(['sh', '-c', script], {}, { cgroup: {} });
    const file = join(directory, made(directory)[0]!, 'cgroup.procs');
    const inIt = (): number[] => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map(Number);
    await eventually(() => inIt().filter((pid) => commandLineOf(pid).startsWith('sleep')).length === 3);
    const pids = inIt();
    t.equal((await daemon.signal(id, signal, 'tree')).status, 204);
    await eventually(() => pids.every((pid) => stateOf(pid) === null));
    await eventually(() => made(directory).length === 0);
  }
});

t.test('SIGKILL to the tree reaches what is left in the cgroup of an ended process', real, async (t) => {
  const directory = cgroupFor(t);
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory] });
  const script = 'setsid sleep 1000 > /dev/null & echo $!; sleep 0.2';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { stdout: 'capture', cgroup: {} });
  await daemon.waitid(id);
  const left = Number((await daemon.get(`/v1/handles/${id}/stdout`)).text);
  t.equal(stateOf(left), 'S');
  t.equal((await daemon.signal(id, 'SIGKILL', 'tree')).status, 204);
  await eventually(() => stateOf(left) === null, 'it is reaped');
  await eventually(() => made(directory).length === 0, 'the cgroup is removed');
  t.match((await daemon.signal(id, 'SIGKILL', 'tree')).body, { errno: 'ESRCH' });
  await daemon.stop();
});

t.test('a cgroup that outlives its handle or its daemon is removed once it is empty', real, async (t) => {
  const directory = cgroupFor(t);
  const args = ['--cgroup', directory];
  const daemon = await Daemon.start(t, { args });
  const closed = await daemon.spawn(['sleep', '1000'], {}, { cgroup: {} });
  const left = await daemon.spawn(['sleep', '1000'], {}, { cgroup: {} });
  await daemon.request('DELETE', `/v1/handles/${closed.id}`);
  t.equal(made(directory).length, 2);
  process.kill(closed.process.pid, 'SIGKILL');
  await eventually(() => made(directory).length === 1);
  await daemon.kill();
  process.kill(left.process.pid, 'SIGKILL');
  await eventually(() => stateOf(left.process.pid) === null || stateOf(left.process.pid) === 'Z');
  const heir = await Daemon.start(t, { directory: daemon.directory, args });
  await eventually(() => made(directory).length === 0);
  await heir.stop();
});

t.test('a process is settled when its cgroup is empty, over upgrades and crashes', real, async (t) => {
  const directory = cgroupFor(t);
  const args = ['--cgroup', directory];
  let daemon = await Daemon.start(t, { args });
  const isSettled = async (id: string): Promise<boolean> =>
    !(await daemon.post('/v1/poll', { handles: [id], for: 'settled', timeoutMs: 0 })).body.timedOut;
  const settled = (id: string) => daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  /** Spawns a shell whose grandchild has left the session and has lost its parent when the shell ends. */
  const spawn = async (): Promise<{ id: string; survivor: number; path: string }> => {
    const before = new Set(made(directory));
    const { id } = await daemon.spawn(['sh', '-c', 'setsid sh -c "sleep 1000 & exit" & wait'], {}, { cgroup: {} });
    const [name = ''] = made(directory).filter((each) => !before.has(each));
    const path = join(directory, name);
    await daemon.post('/v1/poll', { handles: [id] });
    const [survivor = 0] = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').map(Number);
    return { id, survivor, path };
  };
  const nothing = await daemon.spawn(['true'], {}, { cgroup: {} });
  t.equal((await settled(nothing.id)).status, 200);
  t.same(
    (await daemon.events(nothing.id)).map(({ event }) => event),
    ['opened', 'exited', 'settled'],
  );
  const [first, upgraded, crashed, moved] = [await spawn(), await spawn(), await spawn(), await spawn()];
  for (const { id } of [first, upgraded, crashed, moved]) t.notOk(await isSettled(id));
  process.kill(first.survivor, 'SIGKILL');
  await settled(first.id);
  writeFileSync(join(TREE!, 'cgroup.procs'), String(moved.survivor));
  await settled(moved.id);
  t.not(stateOf(moved.survivor), null, 'a process that was moved out of it does not count');
  process.kill(moved.survivor, 'SIGKILL');
  await daemon.upgrade();
  t.notOk(await isSettled(upgraded.id));
  process.kill(upgraded.survivor, 'SIGKILL');
  await settled(upgraded.id);
  await daemon.kill();
  process.kill(crashed.survivor, 'SIGKILL');
  // Removed by somebody else while no daemon runs.
  await eventually(() => readFileSync(join(crashed.path, 'cgroup.events'), 'utf8').includes('populated 0'));
  rmdirSync(crashed.path);
  daemon = await Daemon.start(t, { directory: daemon.directory, args });
  await settled(crashed.id);
  for (const { id } of [first, upgraded, crashed, moved])
    t.equal((await daemon.events(id)).filter(({ event }) => event === 'settled').length, 1);
  await eventually(() => made(directory).length === 0);
});

t.test('--cgroup must be a cgroup', async (t) => {
  const refused = Daemon.begin(t, { args: ['--cgroup', temporaryDirectory(t)] });
  t.equal(await refused.exited, 2);
  t.match(refused.log.join(''), /--cgroup or WAITD_CGROUP: must be the path of a cgroup/);
});

/** The kernel assigns a controller to one cgroup version only, on some machines to version 2. */
const hasMemory = TREE !== undefined && readFileSync(join(TREE, 'cgroup.subtree_control'), 'utf8').includes('memory');
const withoutMemory = hasMemory ? { skip: 'this machine assigns the memory controller to version 2' } : real;

t.test('without a required controller nothing is started', withoutMemory, async (t) => {
  const directory = cgroupFor(t);
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory] });
  const answer = await daemon.post('/v1/handles', { spawn: { argv: ['true'], cgroup: { memoryMax: 2 ** 20 } } });
  t.match(answer.body, { status: 501, errno: 'EOPNOTSUPP', detail: /memory controller/ });
  t.same(made(directory), []);
});

/**
 * Ordinary files replace the kernel's, since not every machine assigns the memory controller to version 2. The test
 * simulates the OOM kill: it checks the written limits, and the report of the kernel's counter.
 */
t.test('limits are written where the kernel reads them, and the outcome reports an OOM kill', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'cgroup.procs'), '');
  const env = {
    NODE_OPTIONS: `--import ${join(import.meta.dirname, 'support/controllers.ts')}`,
    FAKE_CGROUP: directory,
  };
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory], env });
  const cgroup = { memoryMax: 2 ** 26, pidsMax: 30, cpuPercent: 150 };
  const handle = await daemon.spawn(['sleep', '1000'], {}, { cgroup });
  const [name = ''] = made(directory);
  const read = (file: string): string => readFileSync(join(directory, name, file), 'utf8');
  t.equal(read('cgroup.procs'), '0', 'the process enters by itself: 0 means the writer');
  t.same(['memory.max', 'memory.swap.max', 'pids.max', 'cpu.max'].map(read), ['67108864', '0', '30', '150000 100000']);
  writeFileSync(join(directory, name, 'memory.events'), 'low 0\noom 1\noom_kill 1\n');
  process.kill(handle.process.pid, 'SIGKILL');
  t.match((await daemon.waitid(handle.id)).body.outcome, { reason: 'killed', signal: 'SIGKILL', oom: true });
  t.match((await daemon.get(`/v1/handles/${handle.id}`)).body.outcome, { oom: true });
  t.match((await daemon.events(handle.id)).at(-1).outcome, { oom: true });

  const kills = (count: number): string => `low 0\noom ${count}\noom_kill ${count}\n`;
  const spawned = async (): Promise<{ id: string; pid: number; events: string }> => {
    const before = new Set(made(directory));
    const { id, process: own } = await daemon.spawn(['sh', '-c', 'trap "" TERM; exec sleep 1000'], {}, { cgroup });
    await eventually(() => commandLineOf(own.pid).startsWith('sleep'));
    const [fresh = ''] = made(directory).filter((each) => !before.has(each));
    return { id, pid: own.pid, events: join(directory, fresh, 'memory.events') };
  };
  /** Waits a second, because nothing shows that the daemon has checked for killed processes. */
  const noticed = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1000));
  const outcomeOf = async (id: string): Promise<{ signal: string; oom?: true }> =>
    (await daemon.waitid(id)).body.outcome;

  const killed = await spawned();
  await daemon.signal(killed.id, 'SIGKILL');
  t.same(await outcomeOf(killed.id), { reason: 'killed', signal: 'SIGKILL' }, 'killed by a client');

  for (const how of ['signal', 'terminate', 'from elsewhere'] as const) {
    const leader = await spawned();
    writeFileSync(leader.events, kills(1));
    if (how === 'signal') await daemon.signal(leader.id, 'SIGKILL', 'tree');
    else if (how === 'terminate') await daemon.post(`/v1/handles/${leader.id}/terminate`, { graceMs: 0 });
    else {
      await noticed();
      process.kill(leader.pid, 'SIGKILL');
    }
    t.notOk((await outcomeOf(leader.id)).oom, `the OOM killer killed another process of the cgroup before: ${how}`);
  }

  const both = await spawned();
  writeFileSync(both.events, kills(1));
  await noticed();
  writeFileSync(both.events, kills(2));
  process.kill(both.pid, 'SIGKILL');
  t.match(await outcomeOf(both.id), { oom: true }, 'another one first, and then this one');
});
