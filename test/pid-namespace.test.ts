import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { childrenOf, commandLineOf, Daemon, eventually } from './support/harness.ts';

const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : 'a pid namespace with its own /proc needs root';

/** Starts a daemon as PID 1 of a pid namespace, as in a container, and finds its pid outside. */
async function startAsInit(t: Test): Promise<{ daemon: Daemon; init: number }> {
  const daemon = await Daemon.start(t, { prefix: ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'] });
  return { daemon, init: childrenOf(daemon.pid)[0]! };
}

/** Runs a program in the namespace of a process, as a container's health probe does. Its parent stays outside. */
async function enter(
  t: Test,
  init: number,
  name: string,
): Promise<{ outer: number; inner: number; entering: ChildProcess }> {
  const script = `exec -a ${name} sleep 1000`;
  const entering = spawn('nsenter', ['-t', String(init), '-p', '-m', 'bash', '-c', script], { stdio: 'ignore' });
  t.teardown(async () => {
    if (entering.exitCode !== null || entering.signalCode !== null) return;
    for (const pid of childrenOf(entering.pid!)) process.kill(pid, 'SIGKILL');
    await once(entering, 'exit');
  });
  await eventually(() => childrenOf(entering.pid!).some((pid) => commandLineOf(pid).startsWith(name)));
  const outer = childrenOf(entering.pid!)[0]!;
  const status = readFileSync(`/proc/${outer}/status`, 'utf8');
  return { outer, inner: Number(/^NSpid:.*\s(\d+)$/m.exec(status)![1]), entering };
}

t.test('as PID 1 of a pid namespace, the daemon opens itself as a foreign process', { skip }, async (t) => {
  const { daemon } = await startAsInit(t);
  const answer = await daemon.post('/v1/handles', { open: { pid: 1 } });
  t.match(answer, { status: 201, body: { relation: 'foreign', state: 'running', process: { pid: 1 } } });
});

t.test('a process whose parent is outside the namespace is foreign, also after an upgrade', { skip }, async (t) => {
  const { daemon, init } = await startAsInit(t);
  const { outer, inner, entering } = await enter(t, init, 'entered');
  const opened = await daemon.post('/v1/handles', { open: { pid: inner } });
  t.match(opened, { status: 201, body: { relation: 'foreign', state: 'running', process: { pid: inner } } });
  t.match(await daemon.post('/v1/handles', { open: { pid: 1 } }), { status: 201 });
  const from = daemon.entries.length;
  process.kill(init, 'SIGHUP');
  await daemon.ready(from);
  const { id } = opened.body;
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'foreign', state: 'running' });
  process.kill(outer, 'SIGKILL');
  await once(entering, 'exit');
  const { body } = await daemon.post('/v1/poll', { handles: [id], for: 'outcome' });
  t.match(body.ready, [{ outcome: { reason: 'killed', signal: 'SIGKILL' } }]);
});

t.test('a watch opens a process that has entered the namespace from outside', { skip }, async (t) => {
  const { daemon, init } = await startAsInit(t);
  const watch = await daemon.post('/v1/watches', { match: { argv: 'watched *' } });
  t.equal(watch.status, 201);
  const { inner } = await enter(t, init, 'watched');
  const opened = (await daemon.get('/v1/events?since=0&type=opened&timeoutMs=60000')).body.events;
  t.match(opened, [{ process: { pid: inner }, watch: watch.body.id }]);
  t.match((await daemon.get('/v1/handles')).body.handles, [{ relation: 'foreign', state: 'running' }]);
});

t.test(
  'a child of a process that entered is reparented to the daemon once that process has ended',
  { skip },
  async (t) => {
    const { daemon, init } = await startAsInit(t);
    const entering = spawn(
      'nsenter',
      ['-t', String(init), '-p', '-m', 'sh', '-c', 'sleep 1000 & echo $!; read -r line'],
      { stdio: ['pipe', 'pipe', 'ignore'] },
    );
    const [printed] = (await once(entering.stdout, 'data')) as [Buffer];
    const { body } = await daemon.post('/v1/handles', { open: { pid: Number(printed) } });
    t.match(body, { relation: 'foreign', state: 'running' });
    entering.stdin.end();
    const adopted = await daemon.get(`/v1/events?handle=${body.id}&type=adopted&since=${body.seq}&timeoutMs=60000`);
    t.match(adopted.body.events, [{ event: 'adopted' }]);
    await daemon.signal(body.id, 'SIGKILL');
    t.match((await daemon.waitid(body.id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  },
);
