import { spawn as nodeSpawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Features, since } from '../../../src/kernel/features.ts';
import { Daemon, eventually, stateOf } from '../../support/harness.ts';

// The first output line from another kernel, so that nothing can pass on the wrong one.
const wanted = process.env.KERNEL ?? '';
t.ok(release().startsWith(wanted), `this is Linux ${release()}`);

const number = (version: string): number => {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return 1000 * major + minor;
};
/**
 * The reference's table: a kernel has the features of its own row and of earlier ones. The tested distributions
 * backport none.
 */
const has = (feature: keyof Features): boolean => number(release()) >= number(since[feature]);
const inode = has('inode') ? /^\d+$/ : null;

const daemon = await Daemon.start(t);
const { pid } = daemon;

t.test('the daemon finds the features that the kernel table states', async (t) => {
  const limits = readFileSync(join(import.meta.dirname, '../../../docs/reference/limits.md'), 'utf8');
  const features = await daemon.features();
  for (const feature of Object.keys(since) as (keyof Features)[]) {
    t.equal(features[feature], has(feature), `${feature}, which ${since[feature]} adds`);
    t.match(limits, `| ${since[feature].padEnd(5)} | `, 'the table has a row for it');
  }
});

t.test('spawn, waitid and their events', async (t) => {
  const handle = await daemon.spawn(['sh', '-c', 'kill -STOP $$; exit 7'], { nonblocking: true });
  t.match(handle, { relation: 'child', process: { inode } });
  await daemon.waitid(handle.id, { options: ['WSTOPPED'] });
  await eventually(() => stateOf(handle.process.pid) === 'T');
  t.match((await daemon.waitid(handle.id)).body, { status: 409, errno: 'EAGAIN' });
  t.match((await daemon.waitid(handle.id, { options: ['WEXITED', 'WNOHANG'] })).body, { siginfo: null });
  t.equal((await daemon.signal(handle.id, 'SIGCONT')).status, 204);
  const polled = await daemon.post('/v1/poll', { handles: [handle.id] });
  t.match(polled.body.ready, [{ revents: ['POLLIN', 'POLLHUP'], outcome: { reason: 'exited', exitCode: 7 } }]);
  t.match((await daemon.waitid(handle.id)).body, { outcome: { reason: 'exited', exitCode: 7 } });
  t.match((await daemon.waitid(handle.id)).body, { status: 410, errno: 'ECHILD' });
  const names = (await daemon.events(handle.id)).map(({ event }) => event);
  t.same([names[0], ...names.slice(-2)], ['opened', 'exited', 'settled']);
});

t.test('as another user, within limits, with captured output', async (t) => {
  const spawn = {
    argv: ['sh', '-c', 'id -u; ulimit -n; umask'],
    stdout: 'capture',
    user: 'nobody',
    limits: { nofile: 64 },
    umask: '027',
  };
  const { status, body, text } = await daemon.post('/v1/handles', { spawn }, { headers: { prefer: 'wait=200' } });
  t.equal(status, 201, text);
  t.match(body, { outcome: { reason: 'exited', exitCode: 0 } });
  const { text: shown } = await daemon.get(`/v1/handles/${body.id}/stdout?follow=1`);
  t.same(shown.trim().split('\n'), ['65534', '64', '0027']);
});

t.test('a missing program, and a secret argument', async (t) => {
  const missing = await daemon.post('/v1/handles', { spawn: { argv: ['/no/such/program'] } });
  t.match(missing.body, { status: 422, errno: 'ENOENT' });
  const { id } = await daemon.spawn(['sh', '-c', 'test "$0" = hush', { secret: 'hush' }] as never);
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'exited', exitCode: 0 } });
});

/** Starts a process with another parent, which reaps it when it is continued. */
async function foreign(t: Test): Promise<{ pid: number; reap(): void }> {
  const parent = nodeSpawn('sh', ['-c', 'sleep 1000 & echo $!; kill -STOP $$; wait']);
  t.teardown(() => parent.kill('SIGKILL'));
  const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)));
  await eventually(() => stateOf(parent.pid!) === 'T');
  return { pid, reap: () => parent.kill('SIGCONT') };
}

t.test('a foreign process: by pid and inode, and its outcome if the kernel reports it', async (t) => {
  const other = await foreign(t);
  const { body: handle } = await daemon.post('/v1/handles', { open: { pid: other.pid } });
  t.match(handle, { relation: 'foreign', process: { inode } });
  const { process: view } = handle;
  const again = await daemon.post('/v1/handles', { open: { pid: view.pid, inode: view.inode } });
  t.equal(again.status, 201, 'by the values of the view, null included');
  const wrong = (await daemon.post('/v1/handles', { open: { pid: view.pid, inode: '1' } })).body;
  t.match(wrong, has('inode') ? { errno: 'ESRCH' } : { status: 501, errno: 'EOPNOTSUPP', detail: since.inode });
  process.kill(other.pid, 'SIGKILL');
  t.match((await daemon.post('/v1/poll', { handles: [handle.id] })).body.ready, [{ handle: handle.id }]);
  other.reap();
  const { ready } = (await daemon.post('/v1/poll', { handles: [handle.id], for: 'outcome' })).body;
  const outcome = has('exitStatus') ? { reason: 'killed', signal: 'SIGKILL' } : { reason: 'unknown' };
  t.match(ready, [{ outcome }]);
  t.match((await daemon.waitid(handle.id)).body, { errno: 'ECHILD' });
});

t.test('signals to a group and to a tree', async (t) => {
  const script = 'sleep 1000 & echo $! >"$0"; wait';
  const file = join(daemon.directory, 'pid');
  const { id } = await daemon.spawn(['sh', '-c', script, file]);
  const member = await readPid(file);
  const answer = await daemon.signal(id, 'SIGSTOP', 'group');
  if (has('groupSignal')) {
    t.equal(answer.status, 204);
    await eventually(() => stateOf(member) === 'T');
  } else t.match(answer.body, { status: 501, errno: 'EOPNOTSUPP', detail: since.groupSignal });
  t.equal((await daemon.signal(id, 'SIGKILL', 'tree')).status, 204);
  t.match((await daemon.waitid(id)).body, { outcome: { signal: 'SIGKILL' } });
  await eventually(() => stateOf(member) === null || stateOf(member) === 'Z');
});

async function readPid(file: string): Promise<number> {
  const read = (): number => {
    try {
      return Number(readFileSync(file, 'utf8'));
    } catch {
      return 0;
    }
  };
  await eventually(() => read() > 0);
  return read();
}

t.test('an orphan is adopted and reaped', async (t) => {
  const file = join(daemon.directory, 'orphan');
  const { id } = await daemon.spawn(['sh', '-c', 'sleep 1000 & echo $! >"$0"; wait', file]);
  const orphan = await readPid(file);
  const { body: handle } = await daemon.post('/v1/handles', { open: { pid: orphan } });
  await daemon.signal(id, 'SIGKILL');
  await daemon.waitid(id);
  await eventually(async () => (await daemon.get(`/v1/handles/${handle.id}`)).body.relation === 'child');
  process.kill(orphan, 'SIGKILL');
  t.match((await daemon.waitid(handle.id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
});

t.test('terminate ends its target', async (t) => {
  const file = join(daemon.directory, 'deaf');
  const { id } = await daemon.spawn(['sh', '-c', 'trap "" TERM; : >"$0"; while :; do sleep 1; done', file]);
  await eventually(() => existsSync(file));
  const { status, body } = await daemon.post(`/v1/handles/${id}/terminate`, { graceMs: 1 });
  t.match({ status, body }, { status: 200, body: { outcome: { reason: 'killed', signal: 'SIGKILL' } } });
});

t.test('SIGHUP: the same pid, the same children, no event lost; SIGTERM: found again as foreign', async (t) => {
  const { id, process: child, seq } = await daemon.spawn(['sleep', '1000']);
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  await daemon.upgrade();
  t.equal((await socket.closed).code, 1012);
  t.equal(daemon.pid, pid);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running', process: { inode } });
  const other = await daemon.spawn(['sleep', '1000']);
  t.equal((await daemon.signal(other.id, 'SIGTERM')).status, 204);
  t.match((await daemon.waitid(other.id)).body, { outcome: { signal: 'SIGTERM' } });
  t.ok((await daemon.events(id)).every((event) => event.seq > seq));
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.get(`/v1/handles/${id}`)).body, { relation: 'foreign', state: 'running' });
  process.kill(child.pid, 'SIGKILL');
  t.match((await heir.post('/v1/poll', { handles: [id] })).body.ready, [{ handle: id }]);
  t.equal(await heir.stop(), 0);
});
