import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { closedToOthers, isRoot } from './support/command.ts';
import { Ext4, fill, smallDisk, withExt4, withSmallDisk } from './support/disks.ts';
import {
  childrenOf,
  commandLineOf,
  Daemon,
  eventually,
  Gate,
  type Response,
  temporaryDirectory,
  withFaults,
} from './support/harness.ts';

interface Faulty {
  daemon: Daemon;
  /** Makes that step fail from now on. */
  fail(step: string): void;
  mend(): void;
}

async function faulty(t: Test, directory?: string): Promise<Faulty> {
  const file = join(t.testdir(), 'fault');
  const daemon = await Daemon.start(t, { env: withFaults(file), ...(directory !== undefined && { directory }) });
  return { daemon, fail: (step) => writeFileSync(file, step), mend: () => rmSync(file, { force: true }) };
}

const namesOf = async (daemon: Daemon, id: string): Promise<string[]> =>
  (await daemon.events(id)).map(({ event }) => event);

t.test('a daemon that dies before it writes an exit, between the write and the reap, or after the reap', async (t) => {
  for (const [step, outcome] of [
    ['die before the write', { reason: 'unknown' }],
    ['die between write and reap', { reason: 'exited', exitCode: 5 }],
    ['die after the reap', { reason: 'exited', exitCode: 5 }],
  ] as const) {
    const { daemon, fail } = await faulty(t);
    const gate = new Gate(t);
    const script = 'sleep 1000 & if read -r line < "$0"; then exit 5; fi';
    const { id, process: leader } = await daemon.spawn(['sh', '-c', script, gate.path]);
    await eventually(() => childrenOf(leader.pid).some((pid) => commandLineOf(pid).startsWith('sleep')));
    const [survivor = 0] = childrenOf(leader.pid);
    fail(step);
    gate.open();
    await daemon.exited;
    // Init may leave its zombie unreaped; then its end is known, and its outcome is not.
    const heir = await Daemon.start(t, { directory: daemon.directory });
    const { body } = await heir.get(`/v1/handles/${id}`);
    t.equal(body.state, 'exited');
    if (step !== 'die before the write') t.match(body, { outcome }, step);
    // Its state as a zombie; or, after init has reaped it, its outcome from the kernel.
    else t.match(body.outcome ?? { exitCode: 5 }, body.outcome?.reason === 'unknown' ? outcome : { exitCode: 5 }, step);
    t.equal((await namesOf(heir, id)).filter((name) => name === 'exited').length, 1, 'reported once');
    if (step !== 'die before the write')
      t.match((await heir.waitid(id)).body, { outcome: { exitCode: 5 } }, 'its status can still be collected');
    const settled = heir.post('/v1/poll', { handles: [id], for: 'settled' });
    process.kill(survivor, 'SIGKILL');
    const isForeign = body.relation === 'foreign';
    t.match(await settled, isForeign ? { status: 400 } : { status: 200, body: { timedOut: false } });
    t.equal((await namesOf(heir, id)).filter((name) => name === 'settled').length, isForeign ? 0 : 1, step);
    t.equal(await heir.stop(), 0);
  }
});

t.test(
  'a daemon that dies between an exit and `settled` leaves that to the next one, which sends it once',
  async (t) => {
    for (const step of ['die between write and reap', 'die after the reap']) {
      const { daemon, fail } = await faulty(t);
      const gate = new Gate(t);
      const { id } = await daemon.spawn(['sh', '-c', 'read -r line < "$0"', gate.path]);
      fail(step);
      gate.open();
      await daemon.exited;
      let heir = await Daemon.start(t, { directory: daemon.directory });
      t.match((await heir.post('/v1/poll', { handles: [id], for: 'settled' })).body, { timedOut: false });
      t.same(await namesOf(heir, id), ['opened', 'exited', 'settled'], step);
      await heir.kill();
      heir = await Daemon.start(t, { directory: daemon.directory });
      t.same(await namesOf(heir, id), ['opened', 'exited', 'settled'], step);
      t.equal(await heir.stop(), 0);
    }
  },
);

t.test('while the disk is full, statuses wait and are written later; nothing is lost', async (t) => {
  for (const step of ['disk full', 'I/O error', 'disk full at commit']) {
    const { daemon, fail, mend } = await faulty(t);
    const handles = await Promise.all(Array.from({ length: 20 }, () => daemon.spawn(['sleep', '100'])));
    const [first, ...others] = handles;
    const ended = { headers: { prefer: 'wait=20' } };
    const capture = (text: string): object => ({ spawn: { argv: ['echo', text], stdout: 'capture' } });
    const [writer, shared] = [
      (await daemon.post('/v1/handles', capture('written'), ended)).body,
      (await daemon.post('/v1/handles', capture('shared'), ended)).body,
    ];
    const dup = (await daemon.post('/v1/handles', { dup: shared.id })).body;
    for (const { id } of [writer, shared]) await eventually(async () => (await daemon.events(id)).length === 4);
    const socket = daemon.ws();
    const { head } = await socket.first((frame) => frame.type === 'hello');
    fail(step);
    const parked = daemon.waitid(first.id);
    for (const { id } of handles) await daemon.signal(id, 'SIGKILL');
    t.match((await parked).body, { outcome: { signal: 'SIGKILL' } }, 'waitid still works');
    t.match((await daemon.waitid(first.id)).body, { errno: 'ECHILD' }, 'waitid collects once');
    const all = await daemon.post('/v1/poll', { handles: handles.map(({ id }) => id), until: 'all' });
    t.equal(all.body.ready.length, 20, 'poll still works');
    await socket.until(() => socket.events.filter(({ event }) => event === 'exited').length === 20);
    const exited = (await daemon.get('/v1/handles?state=exited&limit=1000')).body.handles;
    t.equal(exited.length, 23, 'lists by state still work');
    t.match(await daemon.get('/readyz'), { status: 503, body: { checks: { journal: /cannot be written/ } } });
    t.equal((await daemon.get('/livez')).status, 200);
    for (const body of [{ spawn: { argv: ['true'] } }, { open: { pid: process.pid } }, { dup: first.id }])
      t.match(await daemon.post('/v1/handles', body), { status: 503, body: { errno: 'ENOSPC' } });
    // The kernel holds statuses that are not written; a fork server that ends in the meantime is still reaped.
    await eventually(() => daemon.zombies.length === 20);
    t.equal((await daemon.get(`/v1/events?since=${head}&limit=1000`)).body.events.length, 20, 'pages still work');
    t.equal((await daemon.request('DELETE', `/v1/handles/${others[0].id}`)).status, 204);
    t.match((await daemon.get(`/v1/handles/${others[0].id}`)).body, { errno: 'ESTALE' });
    const output = join(daemon.directory, 'state', 'output');
    t.equal((await daemon.request('DELETE', `/v1/handles/${writer.id}`)).status, 204);
    t.equal(readdirSync(output).length, 1, 'a closed handle frees space');
    t.equal((await daemon.request('DELETE', `/v1/handles/${shared.id}`)).status, 204);
    t.equal((await daemon.get(`/v1/handles/${dup.id}/stdout`)).text, 'shared\n');
    t.equal((await daemon.request('DELETE', `/v1/handles/${dup.id}`)).status, 204);
    t.equal(readdirSync(output).length, 0, 'a shared description is kept until its last handle is closed');
    mend();
    await eventually(async () => (await daemon.get('/readyz')).status === 200);
    await eventually(() => daemon.zombies.length === 0);
    t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['true'] } })).status, 201);
    daemon.child.kill('SIGKILL');
    await daemon.exited;
    const heir = await Daemon.start(t, { directory: daemon.directory });
    for (const { id } of others.slice(1))
      t.match((await heir.get(`/v1/handles/${id}`)).body, { outcome: { signal: 'SIGKILL' } }, 'everything is on disk');
    t.match((await heir.waitid(first.id)).body, { errno: 'ECHILD' });
    t.equal((await heir.get(`/v1/events?since=${head}&type=exited&limit=1000`)).body.events.length >= 20, true);
    t.equal(await heir.stop(), 0);
  }
});

t.test('changes that could not be written are handed to the next image', async (t) => {
  const { daemon, fail, mend } = await faulty(t);
  const ended = await daemon.spawn(['sleep', '100']);
  const closed = await daemon.spawn(['sleep', '100']);
  const living = await daemon.spawn(['sleep', '100']);
  const socket = daemon.ws('?since=0');
  fail('disk full');
  await daemon.signal(ended.id, 'SIGKILL');
  t.match((await daemon.waitid(ended.id)).body, { outcome: { signal: 'SIGKILL' } });
  await daemon.request('DELETE', `/v1/handles/${closed.id}`);
  const told = await socket.first(({ event }) => event === 'closed');
  mend();
  await daemon.upgrade();
  // The process is reaped, and settled, only once its end is on disk.
  await daemon.post('/v1/poll', { handles: [ended.id], for: 'settled' });
  t.match((await daemon.get('/v1/node')).body, { head: told.seq + 1 });
  const { gap, events } = (await daemon.get('/v1/events?since=0')).body;
  t.same([gap, events.slice(0, -1)], [null, socket.events.slice(0, told.seq)]);
  t.match(events.at(-1), { event: 'settled', handle: ended.id });
  t.match((await daemon.waitid(ended.id)).body, { errno: 'ECHILD' }, 'collected once');
  t.match((await daemon.get(`/v1/handles/${closed.id}`)).body, { errno: 'ESTALE' });
  t.match((await daemon.get(`/v1/handles/${living.id}`)).body, { relation: 'child', state: 'running' });
  await eventually(() => daemon.zombies.length === 0);
  for (const { process: child } of [closed, living]) process.kill(child.pid, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

t.test('a file system that becomes read-only and is remounted', withExt4, async (t) => {
  const directory = temporaryDirectory(t);
  const state = join(directory, 'state');
  mkdirSync(state);
  const disk = Ext4.make(join(directory, 'image'), state);
  t.teardown(() => disk.unmount());
  disk.mount('loop,errors=remount-ro');
  chmodSync(state, 0o700);
  const daemon = await Daemon.start(t, { directory });
  const handles = await Promise.all(Array.from({ length: 20 }, () => daemon.spawn(['sleep', '100'])));
  const socket = daemon.ws('?since=0');
  disk.fail();
  for (const { id } of handles.slice(0, 10)) await daemon.signal(id, 'SIGKILL');
  await socket.until(() => socket.events.filter(({ event }) => event === 'exited').length === 10);
  t.equal((await daemon.get('/readyz')).status, 503);
  t.match(await daemon.post('/v1/handles', { spawn: { argv: ['true'] } }), { body: { errno: 'ENOSPC' } });
  await eventually(() => daemon.zombies.length === 10);
  daemon.child.kill('SIGHUP');
  const { reason } = await daemon.logged('upgrade refused; this image keeps running');
  t.match(reason, /EROFS|EIO/);
  disk.unmount();
  // The daemon's descriptors refer to the old file system, and only a new image opens the new one; children keep
  // running.
  disk.repaired().mount();
  await daemon.upgrade();
  t.equal((await daemon.get('/readyz')).status, 200);
  await eventually(() => daemon.zombies.length === 0);
  t.match((await daemon.get('/v1/events?since=0&limit=1000')).body, { gap: null, events: socket.events });
  for (const { id } of handles.slice(0, 10))
    t.match((await daemon.waitid(id)).body, { outcome: { signal: 'SIGKILL' } });
  for (const { id } of handles.slice(10)) {
    await daemon.signal(id, 'SIGKILL');
    t.match((await daemon.waitid(id)).body, { outcome: { signal: 'SIGKILL' } });
  }
  t.equal(await daemon.stop(), 0);
});

t.test(
  'a change that SQLite refuses is an internal error: the next image starts from journal and kernel',
  async (t) => {
    const { daemon, fail } = await faulty(t);
    const { id } = await daemon.spawn(['sleep', '100']);
    const other = await daemon.spawn(['sleep', '100']);
    fail('refused');
    await daemon.signal(id, 'SIGKILL');
    await daemon.logged('internal error');
    await eventually(() => daemon.entries.filter(({ msg }) => msg === 'ready').length === 2);
    t.match((await daemon.waitid(id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
    t.same(await namesOf(daemon, id), ['opened', 'exited', 'settled']);
    t.match((await daemon.get(`/v1/handles/${other.id}`)).body, { relation: 'child', state: 'running' });
    await daemon.signal(other.id, 'SIGKILL');
    t.equal(await daemon.stop(), 0);
  },
);

t.test('of the log of an earlier daemon, everything is applied except what SQLite refuses', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  t.equal(await daemon.stop(), 0);
  const log = join(daemon.directory, 'state', 'journal.log');
  t.equal(statSync(log).size, 0, 'a stop empties the log');
  const lines = [
    [['INSERT INTO nowhere VALUES (?)', [1]]],
    [['UPDATE handles SET labels = ?', ['{"a":"b"}']]],
    // As if it had been applied already.
    [['INSERT INTO events SELECT * FROM events WHERE seq = ?', [1]]],
  ];
  // The last line is incomplete.
  writeFileSync(
    log,
    `${lines.map((line) => `${JSON.stringify(line)}\n`).join('')}[["UPDATE handles SET labels = ?",["{`,
  );
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.get(`/v1/handles/${id}`)).body, { labels: { a: 'b' }, collected: true });
  t.same(await namesOf(heir, id), ['opened', 'exited', 'settled']);
  t.equal(await heir.stop(), 0);
  t.equal(statSync(log).size, 0);
});

t.test('a damaged log is set aside, the tables stay in use, and a gap reports the loss', async (t) => {
  for (const [what, spoil] of [
    ['a line', (log: string) => writeFileSync(log, '[["nonsense\n[]\n')],
    ['a directory instead of the log', (log: string) => mkdirSync(log)],
  ] as const) {
    const daemon = await Daemon.start(t);
    const { id } = await daemon.spawn(['true']);
    await daemon.waitid(id);
    t.equal(await daemon.stop(), 0);
    const state = join(daemon.directory, 'state');
    rmSync(join(state, 'journal.log'));
    spoil(join(state, 'journal.log'));
    const heir = await Daemon.start(t, { directory: daemon.directory });
    t.ok(
      readdirSync(state).some((name) => /^journal\.log\.damaged-/.test(name)),
      what,
    );
    t.match((await heir.get(`/v1/handles/${id}`)).body, { collected: true }, what);
    if (what === 'a line') {
      await heir.logged('the journal was damaged and is replaced by a new one: its records are lost');
      t.match((await heir.get('/v1/events?since=0')).body.gap, { from: 1 });
    }
    t.equal(await heir.stop(), 0);
  }
});

t.test('a seq is never used twice, not even one that was sent from memory only', async (t) => {
  const { daemon, fail } = await faulty(t);
  const one = await daemon.spawn(['sleep', '100']);
  const two = await daemon.spawn(['sleep', '100']);
  const socket = daemon.ws('?since=0');
  await socket.until(() => socket.events.length === 2);
  fail('disk full');
  await daemon.signal(one.id, 'SIGKILL');
  const told = await socket.first(({ event }) => event === 'exited');
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const heir = await Daemon.start(t, { directory: daemon.directory });
  const resumed = heir.ws(`?since=${told.seq}`);
  t.match(await resumed.first(({ type }) => type === 'gap'), { from: told.seq + 1 }, 'later events may be lost');
  const patient = heir.ws(`?since=${told.seq - 1}`);
  await patient.first(({ type }) => type === 'hello');
  await heir.signal(two.id, 'SIGKILL');
  const next = await resumed.first(({ event }) => event === 'exited' || event === 'reaped');
  t.ok(next.seq > told.seq);
  await patient.first(({ event }) => event === 'exited');
  t.notOk(
    patient.frames.some(({ type }) => type === 'gap'),
    'a reader of events on disk has missed nothing',
  );
  t.match((await heir.get(`/v1/events?since=${told.seq}`)).body.gap, { from: told.seq + 1 });
  resumed.close();
  patient.close();
  t.equal(await heir.stop(), 0);
});

t.test('a damaged journal is set aside, at the start and at run time, and a gap follows', async (t) => {
  const { daemon, fail } = await faulty(t);
  const ended = await daemon.spawn(['true']);
  await daemon.waitid(ended.id);
  const living = await daemon.spawn(['sleep', '100'], { labels: { a: 'b' } });
  await daemon.events(living.id); // a read applies the log to the file first, where the damage is
  fail('damaged');
  const other = await daemon.spawn(['sleep', '100']);
  t.match(await daemon.logged('the journal was damaged and is replaced by a new one: its records are lost'), {
    level: 50,
  });
  for (const { id } of [living, other]) t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.match((await daemon.get('/v1/handles?label=a=b')).body.handles, [{ id: living.id }]);
  t.match((await daemon.get(`/v1/handles/${ended.id}`)).body, { errno: 'ESTALE' }, 'the handle existed');
  t.match((await daemon.get('/v1/events?since=0')).body.gap, { from: 1 });
  const state = join(daemon.directory, 'state');
  const aside = (): string[] => readdirSync(state).filter((name) => /damaged-.*Z$/.test(name));
  t.equal(aside().length, 1);
  const { head, node } = (await daemon.get('/v1/node')).body;
  t.equal(await daemon.stop(), 0);

  const file = openSync(join(state, 'journal.sqlite'), 'r+');
  writeSync(file, Buffer.alloc(4096, 0x5a), 0, 4096, 0);
  closeSync(file);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await heir.logged('the journal was damaged and is replaced by a new one: its records are lost');
  t.equal(aside().length, 2);
  const now = (await heir.get('/v1/node')).body;
  t.equal(now.node, node, 'the node id is unchanged');
  t.ok(now.head >= head);
  t.match((await heir.get(`/v1/events?since=${head - 1}`)).body.gap, { from: head });
  t.match((await heir.get(`/v1/handles/${living.id}`)).body, { errno: 'ESTALE' });
  process.kill(living.process.pid, 'SIGKILL');
  process.kill(other.process.pid, 'SIGKILL');
  t.equal(await heir.stop(), 0);
});

t.test('a disk that is really full, while processes keep exiting', withSmallDisk, async (t) => {
  const directory = temporaryDirectory(t);
  const state = join(directory, 'state');
  mkdirSync(state);
  smallDisk(t, state, 16);
  const daemon = await Daemon.start(t, { directory });
  const handles = await Promise.all(
    Array.from({ length: 60 }, (_, n) => daemon.spawn(['sh', '-c', `sleep 1.${10 + n}; exit ${n}`])),
  );
  const last = await daemon.spawn(['sleep', '100']);
  const socket = daemon.ws();
  await socket.first((frame) => frame.type === 'hello');
  const filler = fill(state);
  // Space that is allocated to the write-ahead log already may accept some more.
  let n = 0;
  await eventually(async () => {
    n += 1;
    const labels = Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`l${at}`, `${n}`.repeat(50)]));
    await daemon.request('PATCH', `/v1/handles/${last.id}`, { body: { labels } });
    return (await daemon.get('/readyz')).status === 503;
  });
  await daemon.signal(last.id, 'SIGKILL');
  await socket.until(() => socket.events.filter(({ event }) => event === 'exited').length === 61);
  t.match(await daemon.post('/v1/handles', { spawn: { argv: ['true'] } }), { status: 503, body: { errno: 'ENOSPC' } });
  t.ok(daemon.zombies.length > 0);
  truncateSync(filler);
  await eventually(async () => (await daemon.get('/readyz')).status === 200);
  await eventually(() => daemon.zombies.length === 0);
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const heir = await Daemon.start(t, { directory });
  for (const [n, { id }] of handles.entries())
    t.match((await heir.waitid(id)).body, { outcome: { reason: 'exited', exitCode: n } });
  t.equal(await heir.stop(), 0);
});

t.test('a spawn that lacks a resource is 503 with a hint', async (t) => {
  const { daemon, fail, mend } = await faulty(t);
  for (const errno of ['EAGAIN', 'ENOMEM', 'EMFILE', 'ENFILE']) {
    fail(`spawn ${errno}`);
    const answer = await daemon.post('/v1/handles', { spawn: { argv: ['true'] } });
    t.match(answer, { status: 503, body: { errno } }, errno);
    t.ok(Number(answer.headers['retry-after']) >= 1);
    mend();
    t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['true'] } })).status, 201);
  }
  t.equal(await daemon.stop(), 0);
});

const skip = isRoot ? closedToOthers : 'only root can be another user';

t.test('out of pids: fork fails with EAGAIN, and open handles keep working', { skip }, async (t) => {
  const directory = temporaryDirectory(t);
  // The limit counts all processes and threads of a user, so the test has a user of its own.
  const uid = 1_000_000 + process.pid;
  chownSync(directory, uid, uid);
  const daemon = await Daemon.start(t, {
    directory,
    prefix: ['prlimit', '--nproc=40', 'setpriv', '--reuid', `${uid}`, '--regid', `${uid}`, '--clear-groups'],
  });
  const held = [];
  for (;;) {
    const { status, body } = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '100'] } });
    if (status !== 201) {
      t.match({ status, body }, { status: 503, body: { errno: 'EAGAIN', syscall: 'posix_spawn' } });
      break;
    }
    held.push(body);
  }
  t.ok(held.length > 0);
  await daemon.signal(held[0].id, 'SIGKILL');
  t.match((await daemon.waitid(held[0].id)).body, { outcome: { signal: 'SIGKILL' } });
  for (const { id } of held) await daemon.signal(id, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: held.map(({ id }) => id), until: 'all' });
  t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['true'] } })).status, 201);
  await daemon.kill(); // as another user it could not write its report for the test runner
});

t.test('out of descriptors: handles fail first, then connections, never the probes', async (t) => {
  const daemon = await Daemon.start(t, { prefix: ['prlimit', '--nofile=256:256'] });
  const held = [];
  for (;;) {
    const { status, body, headers } = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '100'] } });
    if (status !== 201) {
      t.match({ status, body }, { status: 503, body: { errno: 'EMFILE' } });
      t.ok(headers['retry-after']);
      break;
    }
    held.push(body);
  }
  // A spawn briefly needs several; an open uses the remaining ones.
  for (;;) {
    const { status, body } = await daemon.post('/v1/handles', { open: { pid: process.pid } });
    if (status === 201) continue;
    t.match({ status, body }, { status: 503, body: { errno: 'EMFILE' } });
    break;
  }
  t.equal((await daemon.get(`/v1/handles/${held[0].id}`)).status, 200, 'open handles keep working');
  // Each parked wait takes a connection, until none are left. They are opened one at a time, because the daemon closes
  // the oldest of many connections that have not sent a request.
  const parked: Promise<Response>[] = [];
  const refused: Response[] = [];
  const areParked = async (): Promise<boolean> =>
    (await daemon.get('/metrics')).text.includes(`\nwaitd_parked_calls ${parked.length}\n`);
  for (const { id } of held.slice(0, 70)) {
    if (refused.length > 0) break;
    const wait = daemon.waitid(id);
    parked.push(wait);
    wait.then((answer) => refused.push(answer));
    await eventually(async () => refused.length > 0 || (await areParked()));
  }
  t.match(refused, [{ status: 503, body: { errno: 'EMFILE' } }]);
  for (const path of ['/livez', '/readyz', '/metrics']) t.equal((await daemon.get(path)).status, 200, path);
  for (const { process: child } of held) process.kill(child.pid, 'SIGKILL');
  const answers = await Promise.all(parked);
  t.ok(answers.filter(({ status }) => status === 200).length > 0);
  t.ok(answers.every(({ status, body }) => status === 200 || body.errno === 'EMFILE'));
  await eventually(async () => (await daemon.post('/v1/handles', { spawn: { argv: ['true'] } })).status === 201);
  t.equal(statSync(daemon.socket).isSocket(), true);
  t.equal(await daemon.stop(), 0);
});
