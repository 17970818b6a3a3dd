import { spawn as nodeSpawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, stateOf } from './support/harness.ts';

const daemon = await Daemon.start(t);
const features = await daemon.features();

t.test('a handle that was closed after the exit stays closed, whatever happens to its process', async (t) => {
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  const twin = (await daemon.post('/v1/handles', { dup: id })).body;
  t.equal((await daemon.request('DELETE', `/v1/handles/${id}`)).status, 204);
  t.equal((await daemon.post('/v1/handles', { dup: twin.id })).status, 201);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { errno: 'ESTALE' });
  t.match((await daemon.request('DELETE', `/v1/handles/${id}`)).body, { errno: 'ESTALE' });
});

t.test('a spawned process is held from before its first event', async (t) => {
  const answer = await daemon.post('/v1/handles', { spawn: { argv: ['sh', '-c', 'exit 7'] }, labels: { job: '42' } });
  t.equal(answer.status, 201);
  t.equal(answer.headers.location, `/v1/handles/${answer.body.id}`);
  t.match(answer.body, {
    relation: 'child',
    nonblocking: false,
    labels: { job: '42' },
    client: `uid:${process.getuid!()}`,
    collected: false,
  });
  const waited = await daemon.waitid(answer.body.id);
  t.match(waited.body, {
    handle: answer.body.id,
    siginfo: { signo: 'SIGCHLD', code: 'CLD_EXITED', pid: answer.body.process.pid, uid: process.getuid!(), status: 7 },
    outcome: { reason: 'exited', exitCode: 7 },
  });
  t.type(waited.body.rusage.userUs, 'number');
  const page = await daemon.get(`/v1/events?handle=${answer.body.id}&since=${answer.body.seq}`);
  t.same(
    page.body.events.map((event: { event: string }) => event.event),
    ['opened', 'exited', 'settled'],
  );
  const read = await daemon.get(`/v1/handles/${answer.body.id}`);
  t.match(read.body, { state: 'exited', collected: true, outcome: { reason: 'exited', exitCode: 7 } });
});

t.test(
  'a spawned process leads its own session, with clean signals, three descriptors and a small environment',
  async (t) => {
    const file = join(daemon.directory, 'out');
    const script =
      'ls /proc/self/fd | wc -l; grep -E "^Sig(Ign|Blk)" /proc/self/status; ps -o sid=,pgid= -p $$; env | sort';
    const handle = await daemon.spawn(['sh', '-c', script], {}, { stdout: { file }, env: { A: 'b' }, cwd: '/tmp' });
    await daemon.waitid(handle.id);
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    t.equal(lines[0]!.trim(), '4', '0, 1, 2, and the directory that ls reads');
    t.equal(lines[1], 'SigBlk:\t0000000000000000');
    t.match(
      lines[2],
      /^SigIgn:\t000000018?0000000$|^SigIgn:\t0000000000000000$/,
      'the two signals of glibc stay ignored',
    );
    t.same(lines[3]!.trim().split(/\s+/), [String(handle.process.pid), String(handle.process.pid)]);
    t.same(
      lines
        .slice(4)
        .map((line) => line.split('=')[0])
        .filter((name) => !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(name!)),
      ['A', 'HOME', 'LANG', 'PATH'],
    );
  },
);

t.test('stdin, stdout and stderr go where the request says', async (t) => {
  const file = join(daemon.directory, 'io');
  const text = { stdin: { text: 'héllo' }, stdout: { file }, stderr: 'stdout' };
  await daemon.waitid((await daemon.spawn(['sh', '-c', 'cat; echo err >&2'], {}, text)).id);
  t.equal(readFileSync(file, 'utf8'), 'hélloerr\n');
  const base64 = { stdin: { base64: Buffer.from([0, 255, 10]).toString('base64') }, stdout: { file, append: true } };
  await daemon.waitid((await daemon.spawn(['cat'], {}, base64)).id);
  t.same(readFileSync(file).subarray(-3), Buffer.from([0, 255, 10]));
  await daemon.waitid((await daemon.spawn(['true'], {}, { stdout: { file } })).id);
  t.equal(readFileSync(file, 'utf8'), '', 'without append the file is truncated');
});

t.test('a failed spawn reports the error of the kernel', async (t) => {
  const text = join(daemon.directory, 'text');
  writeFileSync(text, 'no program', { mode: 0o755 });
  const cases: [object, number, string][] = [
    [{ argv: ['no-such-program'] }, 422, 'ENOENT'],
    [{ argv: ['/no/such/program'] }, 422, 'ENOENT'],
    [{ argv: [''] }, 422, 'ENOENT'],
    [{ argv: ['/etc/passwd/x'] }, 422, 'ENOTDIR'],
    [{ argv: [text] }, 422, 'ENOEXEC'],
    [{ argv: ['/etc/passwd'] }, 403, 'EACCES'],
    [{ argv: ['true'], cwd: '/no/such/dir' }, 422, 'ENOENT'],
    [{ argv: ['true'], cwd: '/etc/passwd' }, 422, 'ENOTDIR'],
    [{ argv: ['true', 'x'.repeat(200_000)] }, 413, 'E2BIG'],
    [{ argv: ['true'], stdout: { file: '/tmp' } }, 422, 'EISDIR'],
    [{ argv: ['sleep', '1'], env: { PATH: '/nowhere' } }, 422, 'ENOENT'],
  ];
  for (const [spawn, status, errno] of cases) {
    const answer = await daemon.post('/v1/handles', { spawn });
    t.match(
      [answer.status, answer.body.errno, answer.body.syscall],
      [status, errno, 'posix_spawn'],
      JSON.stringify(spawn).slice(0, 80),
    );
  }
});

t.test('an invalid body gets the places of its errors', async (t) => {
  const cases: [unknown, string][] = [
    [{ spawn: { argv: ['true'] }, nonbloking: true }, '/nonbloking'],
    [{ spawn: { argv: [] } }, '/spawn/argv/0'],
    [{ spawn: { argv: ['a\0b'] } }, '/spawn/argv/0'],
    [{ spawn: { argv: ['true'], env: { 'A=B': 'c' } } }, '/spawn/env/A=B'],
    [{ spawn: { argv: ['true'], cwd: 'relative' } }, '/spawn/cwd'],
    [{ open: { pid: 0 } }, '/open/pid'],
    [{ open: { pid: 1, inode: 7 } }, '/open/inode'],
    [{}, '/'],
    [{ open: { pid: 1 }, dup: 'h_x' }, '/'],
    [{ dup: 'h_x', nonblocking: true }, '/nonblocking'],
    [{ spawn: { argv: ['true'] }, labels: { 'a b': 'c' } }, '/labels/a b'],
  ];
  for (const [body, path] of cases) {
    const answer = await daemon.post('/v1/handles', body);
    t.match([answer.status, answer.body.errno], [400, 'EINVAL'], answer.text);
    t.ok(
      answer.body.errors.some((error: { path: string }) => error.path === path),
      `${path} in ${answer.text}`,
    );
  }
});

t.test('open holds any process, refuses a reused pid, and names the process of a thread', async (t) => {
  const sleeper = nodeSpawn('sleep', ['100']);
  t.teardown(() => sleeper.kill('SIGKILL'));
  const pid = sleeper.pid!;
  const opened = await daemon.post('/v1/handles', { open: { pid } });
  t.match(opened.body, { relation: 'foreign', state: 'running', process: { pid, argv: ['sleep', '100'] } });
  const { inode } = opened.body.process;
  t.equal((await daemon.post('/v1/handles', { open: { pid, inode } })).status, 201, 'as in the view, null included');
  t.equal((await daemon.post('/v1/handles', { open: { pid, inode: null } })).status, 201, 'null means absent');
  const other = await daemon.post('/v1/handles', { open: { pid, inode: '1' } });
  if (features.inode) t.match(other.body, { status: 404, errno: 'ESRCH' });
  else t.match(other.body, { status: 501, errno: 'EOPNOTSUPP', detail: /6\.9/ });
  const tid = readdirSync(`/proc/${process.pid}/task`)
    .map(Number)
    .find((id) => id !== process.pid)!;
  const ofThread = await daemon.post('/v1/handles', { open: { pid: tid } });
  t.match(ofThread.body, { status: 404, errno: 'ESRCH', detail: new RegExp(`process ${process.pid}`) });
  t.match((await daemon.post('/v1/handles', { open: { pid: 2147483647 } })).body, { status: 404, errno: 'ESRCH' });
});

t.test('a foreign process: its end is reported at once, its outcome when its parent reaps it', async (t) => {
  // A shell that stops waiting for its child: the zombie stays until the shell continues.
  const parent = nodeSpawn('sh', ['-c', 'sleep 100 & echo $!; kill -STOP $$; wait']);
  t.teardown(() => parent.kill('SIGKILL'));
  const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)));
  await eventually(() => stateOf(parent.pid!) === 'T');
  const { body: handle } = await daemon.post('/v1/handles', { open: { pid } });
  t.match((await daemon.waitid(handle.id)).body, { status: 410, errno: 'ECHILD' });
  process.kill(pid, 'SIGKILL');
  // Before Linux 6.9 the reap is not observable, so that only the end is known.
  const first = features.inode ? null : { reason: 'unknown' };
  const ended = await daemon.post('/v1/poll', { handles: [handle.id] });
  t.match(ended.body.ready, [{ handle: handle.id, revents: ['POLLIN'], outcome: first }]);
  t.match((await daemon.get(`/v1/handles/${handle.id}`)).body, { state: 'exited', outcome: first });
  const outcome = daemon.post('/v1/poll', { handles: [handle.id], for: 'outcome' });
  parent.kill('SIGCONT');
  t.match((await outcome).body.ready, [
    {
      revents: ['POLLIN', 'POLLHUP'],
      outcome: features.exitStatus ? { reason: 'killed', signal: 'SIGKILL' } : { reason: 'unknown' },
    },
  ]);
  t.match((await daemon.waitid(handle.id)).body, { status: 410, errno: 'ECHILD' });
  t.same(
    (await daemon.events(handle.id)).map((event) => event.event),
    features.inode ? ['opened', 'exited', 'reaped'] : ['opened', 'exited'],
  );
});

t.test('dup shares O_NONBLOCK, also after the exit; a second open has its own', async (t) => {
  const first = await daemon.spawn(['sleep', '100'], { nonblocking: true });
  const { body: twin } = await daemon.post('/v1/handles', { dup: first.id });
  const { body: other } = await daemon.post('/v1/handles', { open: { pid: first.process.pid } });
  t.match(twin, { nonblocking: true, process: first.process });
  t.equal(other.nonblocking, false);
  await daemon.request('PATCH', `/v1/handles/${twin.id}`, { body: { nonblocking: false } });
  t.equal((await daemon.get(`/v1/handles/${first.id}`)).body.nonblocking, false);
  const flags = readFileSync(`/proc/${daemon.pid}/fdinfo/${await fdOf(first.process.pid)}`, 'utf8');
  t.notMatch(flags, /flags:\s+0*2004002/, 'the descriptor has the flag');
  await daemon.signal(first.id, 'SIGKILL');
  await daemon.waitid(other.id);
  const { body: late } = await daemon.post('/v1/handles', { dup: first.id });
  t.match(late, { state: 'exited', outcome: { reason: 'killed', signal: 'SIGKILL' } });
  await daemon.request('PATCH', `/v1/handles/${late.id}`, { body: { nonblocking: true } });
  t.equal((await daemon.get(`/v1/handles/${first.id}`)).body.nonblocking, true);
  t.match((await daemon.post('/v1/handles', { open: { pid: first.process.pid } })).body, { errno: 'ESRCH' });
});

async function fdOf(pid: number): Promise<string> {
  return readdirSync(`/proc/${daemon.pid}/fdinfo`).find((fd) => {
    try {
      return new RegExp(`^Pid:\\s+${pid}$`, 'm').test(readFileSync(`/proc/${daemon.pid}/fdinfo/${fd}`, 'utf8'));
    } catch {
      return false;
    }
  })!;
}

t.test('labels merge, null removes, and the list filters by them and by state, newest first', async (t) => {
  const tag = { suite: 'list' };
  const handles = [];
  for (let n = 0; n < 5; n += 1)
    handles.push(await daemon.spawn(['sleep', '100'], { labels: { ...tag, n: String(n) } }));
  const ids = handles.map((handle) => handle.id).reverse();
  const list = async (query: string) => (await daemon.get(`/v1/handles?label=suite=list${query}`)).body;
  t.same(
    (await list('')).handles.map((handle: { id: string }) => handle.id),
    ids,
  );
  const first = await list('&limit=2');
  t.same(
    first.handles.map((handle: { id: string }) => handle.id),
    ids.slice(0, 2),
  );
  const second = await list(`&limit=3&cursor=${first.next}`);
  t.same(
    second.handles.map((handle: { id: string }) => handle.id),
    ids.slice(2),
  );
  t.equal(second.next, null);
  t.same(
    (await list('&label=n=3')).handles.map((handle: { id: string }) => handle.id),
    [ids[1]],
  );
  const patched = await daemon.request('PATCH', `/v1/handles/${ids[0]}`, { body: { labels: { n: null, more: 'x' } } });
  t.same(patched.body.labels, { suite: 'list', more: 'x' });
  await daemon.signal(ids[4]!, 'SIGKILL');
  await daemon.waitid(ids[4]!);
  await daemon.signal(ids[3]!, 'SIGSTOP');
  await daemon.waitid(ids[3]!, { options: ['WSTOPPED'] });
  t.same(
    (await list('&state=exited')).handles.map((handle: { id: string }) => handle.id),
    [ids[4]],
  );
  t.same(
    (await list('&state=stopped')).handles.map((handle: { id: string }) => handle.id),
    [ids[3]],
  );
  t.equal((await list('&state=running')).handles.length, 3);
  for (const query of ['&limit=0', '&limit=1001', '&cursor=7', '&colour=red', '&label=x', '&state=dead'])
    t.match((await daemon.get(`/v1/handles?label=suite=list${query}`)).body, { status: 400, errno: 'EINVAL' }, query);
  for (const id of ids) await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
});

t.test('close leaves the process alone, is ESTALE the second time, and EBADF for an unknown id', async (t) => {
  const handle = await daemon.spawn(['sleep', '100']);
  const path = `/v1/handles/${handle.id}`;
  const { body: twin } = await daemon.post('/v1/handles', { dup: handle.id });
  t.equal((await daemon.request('DELETE', path)).status, 204);
  t.match((await daemon.request('DELETE', path)).body, { status: 410, errno: 'ESTALE' });
  t.match((await daemon.get(path)).body, { status: 410, errno: 'ESTALE' });
  t.ok(stateOf(handle.process.pid), 'the process lives on');
  t.equal((await daemon.request('DELETE', `/v1/handles/${twin.id}?signal=9`)).status, 204);
  await eventually(() => stateOf(handle.process.pid) === null);
  t.match((await daemon.get('/v1/handles/h_nosuch')).body, { status: 404, errno: 'EBADF', handle: 'h_nosuch' });
  t.same(
    (await daemon.events(handle.id)).map((event) => event.event),
    ['opened', 'closed'],
  );
});

t.test('no zombies are left behind', async (t) => {
  const { body } = await daemon.get('/v1/handles?limit=1000');
  for (const { id } of body.handles) await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
  await eventually(() => daemon.zombies.length === 0);
  t.match(await daemon.stop(), 0);
});
