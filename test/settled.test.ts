import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import t from 'tap';
import { readStat } from '../src/kernel/proc.ts';
import { buildFamily, Line } from './support/family.ts';
import { childrenOf, commandLineOf, Daemon, eventually, type Socket, stateOf } from './support/harness.ts';

/** How many families the test with the C program makes, and how many at a time. */
const FAMILIES = Number(process.env.SETTLED_FAMILIES ?? 1000);
const AT_ONCE = 12;

interface Handle {
  id: string;
  seq: number;
  process: { pid: number };
}

const names = async (daemon: Daemon, id: string): Promise<string[]> =>
  (await daemon.events(id)).map(({ event }) => event);

const settledOf = (socket: Socket, id: string): Promise<{ event: string }> =>
  socket.first(({ event, handle }) => event === 'settled' && handle === id);

/** Polls for `settled` without waiting. @returns whether it is */
async function isSettled(daemon: Daemon, ...ids: string[]): Promise<boolean> {
  const { body } = await daemon.post('/v1/poll', { handles: ids, for: 'settled', until: 'all', timeoutMs: 0 });
  return !body.timedOut;
}

/** Returns the only child of a process once it runs a command. */
async function childOf(pid: number, command: string): Promise<number> {
  let found: number | undefined;
  // Kept from the first look: the command line of a process is empty for a moment while it executes a program.
  await eventually(() => {
    found = childrenOf(pid).find((child) => commandLineOf(child).startsWith(command));
    return found !== undefined;
  }, `${pid} has a child that runs ${command}`);
  return found!;
}

/** Spawns a shell with one child in the background, which outlives it. */
async function spawnWithSurvivor(daemon: Daemon, more = {}): Promise<{ handle: Handle; survivor: number }> {
  const handle: Handle = await daemon.spawn(['sh', '-c', 'sleep 1000 & wait'], {}, more);
  const survivor = await childOf(handle.process.pid, 'sleep');
  process.kill(handle.process.pid, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [handle.id] });
  return { handle, survivor };
}

t.test('a process that leaves nothing is settled with its exit', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sh', '-c', 'exit 7']);
  const { body } = await daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  const outcome = { reason: 'exited', exitCode: 7 };
  t.same(body, { ready: [{ handle: id, revents: ['POLLIN', 'POLLHUP'], outcome }], pending: [], timedOut: false });
  t.same(await names(daemon, id), ['opened', 'exited', 'settled']);
  const [, exited, settled] = await daemon.events(id);
  t.same([settled.outcome, settled.rusage, settled.siginfo], [exited.outcome, exited.rusage, exited.siginfo]);
  const dup = (await daemon.post('/v1/handles', { dup: id })).body;
  t.same(await names(daemon, dup.id), ['opened', 'exited', 'settled'], 'a later duplicate has the same events');
  t.ok(await isSettled(daemon, id, dup.id));
});

t.test('`settled` comes when the last survivor has ended, for all handles that are open then', async (t) => {
  const daemon = await Daemon.start(t);
  const socket = daemon.ws('?type=settled');
  const { handle, survivor } = await spawnWithSurvivor(daemon);
  const dup = (await daemon.post('/v1/handles', { dup: handle.id })).body;
  const closed = (await daemon.post('/v1/handles', { dup: handle.id })).body;
  t.same(await names(daemon, handle.id), ['opened', 'exited']);
  const waiting = daemon.post('/v1/poll', { handles: [handle.id, dup.id, closed.id], for: 'settled', until: 'all' });
  await eventually(async () => (await daemon.get('/metrics')).text.includes('\nwaitd_parked_calls 1\n'));
  t.match((await daemon.get('/metrics')).text, '\nwaitd_unsettled_processes 1\n');
  await daemon.request('DELETE', `/v1/handles/${closed.id}`);
  t.notOk(await isSettled(daemon, handle.id));
  process.kill(survivor, 'SIGKILL');
  const { body } = await waiting;
  t.equal(body.ready.length, 3, 'a close does not disturb a parked call');
  await settledOf(socket, handle.id);
  await settledOf(socket, dup.id);
  t.same(await names(daemon, dup.id), ['opened', 'exited', 'settled']);
  t.same((await names(daemon, closed.id)).at(-1), 'closed', 'a closed handle gets none');
  t.match((await daemon.get('/metrics')).text, '\nwaitd_unsettled_processes 0\n');
  socket.close();
});

t.test('foreign processes have no `settled`, and a poll for it says so', async (t) => {
  const daemon = await Daemon.start(t);
  const own = await daemon.spawn(['sleep', '1000']);
  const shell = await daemon.spawn(['sh', '-c', 'sleep 1000 & wait; kill -STOP $$']);
  const pid = await childOf(shell.process.pid, 'sleep');
  const foreign = (await daemon.post('/v1/handles', { open: { pid } })).body;
  const answer = await daemon.post('/v1/poll', { handles: [own.id, foreign.id], for: 'settled' });
  t.match(answer, { status: 400, body: { errno: 'EINVAL', handle: foreign.id, errors: [{ path: '/handles/1' }] } });
  t.match(answer.body.detail, /foreign/);
  process.kill(pid, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [foreign.id] });
  t.notOk((await names(daemon, foreign.id)).includes('settled'));
});

t.test('an adopted child is settled once its own descendants have ended', async (t) => {
  const daemon = await Daemon.start(t);
  const script = 'sh -c "sleep 1000 & wait" & wait';
  const shell = await daemon.spawn(['sh', '-c', script]);
  const middle = await childOf(shell.process.pid, 'sh');
  const survivor = await childOf(middle, 'sleep');
  const adopted = (await daemon.post('/v1/handles', { open: { pid: middle } })).body;
  process.kill(shell.process.pid, 'SIGKILL');
  await eventually(async () => (await daemon.get(`/v1/handles/${adopted.id}`)).body.relation === 'child');
  t.notOk(await isSettled(daemon, adopted.id), 'and this poll has its descendants found');
  process.kill(middle, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [adopted.id] });
  t.notOk(await isSettled(daemon, adopted.id, shell.id));
  process.kill(survivor, 'SIGKILL');
  t.equal((await daemon.post('/v1/poll', { handles: [adopted.id], for: 'settled' })).body.timedOut, false);
  t.equal((await daemon.post('/v1/poll', { handles: [shell.id], for: 'settled' })).body.timedOut, false);
  t.equal((await names(daemon, adopted.id)).filter((name) => name === 'settled').length, 1);
});

/** Spawns a process whose grandchild leads a session of its own. */
async function spawnWithStray(daemon: Daemon): Promise<{ handle: Handle; middle: number; stray: number }> {
  const script = 'sh -c "setsid sleep 1000 & wait" & wait';
  const handle: Handle = await daemon.spawn(['sh', '-c', script]);
  const middle = await childOf(handle.process.pid, 'sh');
  return { handle, middle, stray: await childOf(middle, 'sleep') };
}

t.test('a descendant that left the session counts if a search has found it', async (t) => {
  const daemon = await Daemon.start(t);
  const { handle, stray } = await spawnWithStray(daemon);
  process.kill(handle.process.pid, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [handle.id] });
  t.notOk(await isSettled(daemon, handle.id), 'its parent lives in the session');
  const other = await spawnWithStray(daemon);
  t.notOk(await isSettled(daemon, other.handle.id), 'this poll has the descendants found');
  process.kill(other.middle, 'SIGKILL'); // the shell collects it, and ends
  await daemon.post('/v1/poll', { handles: [other.handle.id] });
  t.notOk(await isSettled(daemon, other.handle.id));
  t.same(await names(daemon, other.handle.id), ['opened', 'exited']);
  const waiting = daemon.post('/v1/poll', { handles: [other.handle.id], for: 'settled' });
  process.kill(other.stray, 'SIGKILL');
  t.equal((await waiting).body.timedOut, false);
  process.kill(stray, 'SIGKILL'); // the shell in the middle collects it, and ends
  t.equal((await daemon.post('/v1/poll', { handles: [handle.id], for: 'settled' })).body.timedOut, false);
});

t.test('a zombie that its parent does not reap has ended', async (t) => {
  const daemon = await Daemon.start(t);
  // The process in the middle leaves the session after it has forked. Once its parent has ended, nothing shows where it
  // came from.
  const script = `
import os, time
if os.fork() == 0:
    if os.fork() != 0: os.setsid()
time.sleep(1000)`;
  const handle: Handle = await daemon.spawn(['python3', '-c', script]);
  const middle = await childOf(handle.process.pid, 'python3');
  const last = await childOf(middle, 'python3');
  await eventually(() => readStat(middle)?.session === middle);
  await daemon.signal(handle.id, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [handle.id] });
  t.notOk(await isSettled(daemon, handle.id));
  const waiting = daemon.post('/v1/poll', { handles: [handle.id], for: 'settled' });
  process.kill(last, 'SIGKILL');
  t.equal((await waiting).body.timedOut, false);
  t.equal(stateOf(last), 'Z');
});

/** Counts the pidfds that a daemon holds. */
function pidfdsOf({ pid }: Daemon): number {
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).includes('pidfd');
    } catch {
      return false; // it was closed meanwhile
    }
  }).length;
}

t.test('no `settled` follows `closed` or `expired`, and no descriptor stays open', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--keep-collected', '100ms'] });
  const { handle, survivor } = await spawnWithSurvivor(daemon);
  const closed = await spawnWithSurvivor(daemon);
  await daemon.waitid(handle.id);
  await eventually(async () => (await daemon.get(`/v1/handles/${handle.id}`)).status === 410);
  await daemon.request('DELETE', `/v1/handles/${closed.handle.id}`);
  t.match((await daemon.get('/metrics')).text, '\nwaitd_unsettled_processes 0\n');
  await eventually(() => pidfdsOf(daemon) === 0, 'the fork server has ended, and no survivor is watched');
  for (const pid of [survivor, closed.survivor]) process.kill(pid, 'SIGKILL');
  for (const pid of [survivor, closed.survivor]) await eventually(() => !existsSync(`/proc/${pid}`));
  await daemon.waitid((await daemon.spawn(['true'])).id);
  t.same(await names(daemon, handle.id), ['opened', 'exited', 'expired']);
  t.same((await names(daemon, closed.handle.id)).at(-1), 'closed');
});

t.test('unsettled processes are taken up by the next daemon, after an upgrade and after a crash', async (t) => {
  let daemon = await Daemon.start(t);
  const found = await Promise.all([1, 2, 3, 4].map(() => spawnWithSurvivor(daemon)));
  const stray = await spawnWithStray(daemon);
  t.notOk(await isSettled(daemon, stray.handle.id));
  process.kill(stray.middle, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [stray.handle.id] });
  const [first, second, third, fourth] = found as [
    (typeof found)[0],
    (typeof found)[0],
    (typeof found)[0],
    (typeof found)[0],
  ];
  const end = async ({ handle, survivor }: (typeof found)[0]): Promise<void> => {
    const waiting = daemon.post('/v1/poll', { handles: [handle.id], for: 'settled' });
    process.kill(survivor, 'SIGKILL');
    t.equal((await waiting).body.timedOut, false);
  };
  daemon.child.kill('SIGSTOP');
  process.kill(first.survivor, 'SIGKILL');
  daemon.child.kill('SIGHUP');
  const from = daemon.entries.length;
  daemon.child.kill('SIGCONT');
  await daemon.ready(from);
  await daemon.post('/v1/poll', { handles: [first.handle.id], for: 'settled' });
  await end(second);
  await daemon.kill();
  process.kill(third.survivor, 'SIGKILL');
  daemon = await Daemon.start(t, { directory: daemon.directory });
  await daemon.post('/v1/poll', { handles: [third.handle.id], for: 'settled' });
  t.notOk(await isSettled(daemon, fourth.handle.id));
  await end(fourth);
  t.notOk(await isSettled(daemon, stray.handle.id), 'the descendant that left the session is still known');
  await end({ handle: stray.handle, survivor: stray.stray });
  for (const { handle } of [...found, stray]) t.same(await names(daemon, handle.id), ['opened', 'exited', 'settled']);
});

t.test('without descriptors the survivors are checked at intervals', async (t) => {
  const prefix = ['sh', '-c', 'ulimit -n 200; exec "$@"', 'sh'];
  const daemon = await Daemon.start(t, { prefix });
  const { handle, survivor } = await spawnWithSurvivor(daemon);
  await eventually(
    async () => (await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '1000'] } })).status === 503,
  );
  const waiting = daemon.post('/v1/poll', { handles: [handle.id], for: 'settled' });
  process.kill(survivor, 'SIGKILL');
  t.equal((await waiting).body.timedOut, false);
});

/** Spawns a family, and checks at its `settled` that all members have ended. @returns whether they had */
async function settles(daemon: Daemon, socket: Socket, line: Line, argv: string[]): Promise<boolean> {
  const { id } = await daemon.spawn(argv, {}, { stdout: { file: line.path, append: true } });
  let isEarly = false;
  await socket.until(() => {
    const is = socket.events.some(({ event, handle }) => event === 'settled' && handle === id);
    isEarly ||= is && line.isHeld;
    return is;
  });
  return !isEarly;
}

t.test(`families that fork, change groups and leave orphans are settled after their last member`, async (t) => {
  const daemon = await Daemon.start(t, { args: ['--keep-uncollected', '1h'] });
  const program = buildFamily(daemon.directory);
  const lines = Line.many(daemon.directory, FAMILIES);
  const early: number[] = [];
  let next = 0;
  const run = async (): Promise<void> => {
    const socket = daemon.ws('?type=settled&type=exited');
    while (next < FAMILIES) {
      const n = next;
      next += 1;
      const argv = n % 10 === 0 ? ['chain', '50'] : [String(n)];
      if (!(await settles(daemon, socket, lines[n]!, [program, ...argv]))) early.push(n);
      socket.frames.length = 0;
    }
    socket.close();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
  t.same(early, [], 'none is settled while a member lives');
  for (const line of lines) line.close();
  t.equal(daemon.zombies.length, 0);
});
