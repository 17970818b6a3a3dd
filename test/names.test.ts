import { existsSync } from 'node:fs';
import t from 'tap';
import { Daemon } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';

const daemon = await Daemon.start(t);

t.test('a name stands for its handle wherever a request takes an id', async (t) => {
  const { id, name } = await daemon.spawn(['sleep', '60'], { name: 'build-42' });
  t.equal(name, 'build-42');
  t.match((await daemon.get('/v1/handles/@build-42')).body, { id, name });
  t.match((await daemon.get('/v1/handles?name=build-42')).body.handles, [{ id, name }]);
  t.same((await daemon.get('/v1/handles?name=other')).body.handles, []);
  t.match((await daemon.request('PATCH', '/v1/handles/@build-42', { body: { labels: { a: 'b' } } })).body, { id });
  const twin = (await daemon.post('/v1/handles', { dup: '@build-42', name: 'twin' })).body;
  t.match(twin, { name: 'twin', process: { pid: (await daemon.get(`/v1/handles/${id}`)).body.process.pid } });
  const opened = await daemon.post('/v1/handles', { open: { pid: twin.process.pid }, name: '_third' });
  t.match(opened.body, { name: '_third' });
  t.match((await daemon.post('/v1/poll', { handles: ['@twin', '@build-42'], timeoutMs: 0 })).body, {
    pending: [twin.id, id],
  });
  const twice = await daemon.post('/v1/poll', { handles: ['@build-42', id], timeoutMs: 0 });
  t.match(twice.body, { errno: 'EINVAL' }, 'an id and a name of one handle');
  t.match((await daemon.waitid('@build-42', { options: ['WEXITED', 'WNOHANG'] })).body, { handle: id, siginfo: null });
  t.equal((await daemon.signal('@build-42', 'SIGKILL')).status, 204);
  t.match((await daemon.waitid('@build-42')).body, { handle: id, outcome: { signal: 'SIGKILL' } });
  t.match((await daemon.post('/v1/handles/@build-42/terminate')).body, { handle: id });
  const page = await daemon.get('/v1/events?handle=@build-42&since=0');
  t.match(
    page.body.events.map((event: { event: string }) => event.event),
    ['opened', 'exited'],
  );
  t.match(page.body.events, [
    { handle: id, name },
    { handle: id, name },
  ]);
  t.equal((await daemon.request('DELETE', '/v1/handles/@build-42')).status, 204);
  t.match((await daemon.get('/v1/handles/@build-42')).body, { errno: 'EBADF', handle: '@build-42' });
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { errno: 'ESTALE' });
});

t.test('frames take names, which are resolved when the frame arrives', async (t) => {
  const first = await daemon.spawn(['sleep', '60'], { name: 'frame' });
  const socket = daemon.ws('?handle=@frame');
  t.same((await socket.first(({ type }) => type === 'subscribed')).handles, [first.id]);
  await daemon.request('PATCH', '/v1/handles/@frame', { body: { name: null } });
  await daemon.signal(first.id, 'SIGKILL');
  await socket.first(({ event }) => event === 'exited');
  const second = await daemon.spawn(['true'], { name: 'frame' });
  socket.send({ type: 'subscribe', handles: ['@frame', '@nobody'] });
  await socket.first(({ type, handles }) => type === 'subscribed' && handles[0] === second.id);
  t.match(await socket.first(({ type }) => type === 'error'), { errno: 'EBADF', detail: /@nobody/ });
  t.same(
    new Set(socket.events.map(({ handle, name }) => `${handle} ${name}`)),
    new Set([`${first.id} frame`, `${first.id} null`, `${second.id} frame`]),
  );
  socket.send({ type: 'unsubscribe', handles: ['@frame'] });
  socket.send({ type: 'subscribe', handles: ['@frame'] });
  await socket.until(() => socket.frames.filter(({ type }) => type === 'subscribed').length === 3);
  socket.close();
  t.match((await daemon.get('/v1/events?handle=@nobody')).body, { errno: 'EBADF' });
});

t.test('a name in use is refused, with the handle that has it, and free again once that is closed', async (t) => {
  const { id } = await daemon.spawn(['true'], { name: 'taken' });
  await daemon.waitid(id);
  const refused = { errno: 'EEXIST', status: 409, handle: id };
  const spawn = { argv: ['touch', `${daemon.directory}/must-not-run`] };
  t.match((await daemon.post('/v1/handles', { spawn, name: 'taken' })).body, refused, 'also after the end');
  t.match((await daemon.post('/v1/handles', { open: { pid: process.pid }, name: 'taken' })).body, refused);
  t.match((await daemon.post('/v1/handles', { dup: id, name: 'taken' })).body, refused);
  const other = await daemon.spawn(['sleep', '60'], { labels: { a: '1' }, nonblocking: true });
  const change = { name: 'taken', labels: { a: '2' }, nonblocking: false };
  t.match((await daemon.request('PATCH', `/v1/handles/${other.id}`, { body: change })).body, refused);
  t.match((await daemon.get(`/v1/handles/${other.id}`)).body, { name: null, labels: { a: '1' }, nonblocking: true });
  const same = await daemon.request('PATCH', `/v1/handles/${id}`, { body: { name: 'taken' } });
  t.match(same.body, { id, name: 'taken' }, 'a handle may keep its own');
  t.equal((await daemon.request('DELETE', `/v1/handles/${id}`)).status, 204);
  t.match((await daemon.request('PATCH', `/v1/handles/${other.id}`, { body: change })).body, { name: 'taken' });
  t.match((await daemon.request('PATCH', '/v1/handles/@taken', { body: { name: 'moved' } })).body, { id: other.id });
  t.match((await daemon.get('/v1/handles/@taken')).body, { errno: 'EBADF' });
  t.match((await daemon.spawn(['true'], { name: 'taken' })).name, 'taken');
  t.notOk(existsSync(`${daemon.directory}/must-not-run`));
});

t.test('of many creates of one name at the same time, exactly one succeeds', async (t) => {
  for (let round = 0; round < 20; round += 1) {
    const name = `race-${round}`;
    const bodies = Array.from({ length: 8 }, (_, index) =>
      index % 4 === 0 ? { open: { pid: process.pid }, name } : { spawn: { argv: ['true'] }, name },
    );
    const answers = await Promise.all(bodies.map((body) => daemon.post('/v1/handles', body)));
    const made = answers.filter(({ status }) => status === 201);
    t.equal(made.length, 1);
    for (const { status, body } of answers)
      if (status !== 201) t.match(body, { errno: 'EEXIST', handle: made[0]!.body.id });
    t.equal((await daemon.get(`/v1/handles?name=${name}`)).body.handles.length, 1);
  }
});

t.test('a name that is freed and taken in a loop always leads to the newest handle', async (t) => {
  for (let round = 0; round < 50; round += 1) {
    const { id } = await daemon.spawn(['true'], { name: 'loop' });
    const [closed, read] = await Promise.all([
      daemon.request('DELETE', `/v1/handles/${id}`),
      daemon.get('/v1/handles/@loop'),
    ]);
    t.equal(closed.status, 204);
    if (read.status === 200) t.equal(read.body.id, id);
    else t.match(read.body, { errno: 'EBADF' });
  }
});

t.test('a spawn that fails frees its name', async (t) => {
  const failed = await daemon.post('/v1/handles', { spawn: { argv: ['/no/such/program'] }, name: 'failed' });
  t.match(failed.body, { errno: 'ENOENT' });
  t.match((await daemon.get('/v1/handles/@failed')).body, { errno: 'EBADF' });
  t.equal((await daemon.spawn(['true'], { name: 'failed' })).name, 'failed');
});

t.test('what is no name is refused', async (t) => {
  for (const name of ['', '.a', '-a', 'a b', 'a/b', '@a', 'é', 'a'.repeat(129), 7, {}]) {
    const answer = await daemon.post('/v1/handles', { spawn: { argv: ['true'] }, name });
    t.match(answer.body, { errno: 'EINVAL', errors: [{ path: '/name' }] }, JSON.stringify(name));
  }
  t.equal((await daemon.spawn(['true'], { name: 'a'.repeat(128) })).name.length, 128);
  t.match((await daemon.get(`/v1/handles/@${'a'.repeat(128)}`)).status, 200);
  t.match((await daemon.get('/v1/handles?name=.a')).body, { errno: 'EINVAL' });
});

t.test('names survive an upgrade, a crash and a restart, those of ended processes too', async (t) => {
  const daemon = await Daemon.start(t);
  const lives = await daemon.spawn(['sleep', '60'], { name: 'lives' });
  const ended = await daemon.spawn(['true'], { name: 'ended' });
  await daemon.post('/v1/poll', { handles: [ended.id] });
  const check = async (daemon: Daemon): Promise<void> => {
    t.equal((await daemon.get('/v1/handles/@lives')).body.id, lives.id);
    t.equal((await daemon.get('/v1/handles/@ended')).body.id, ended.id);
    for (const name of ['lives', 'ended'])
      t.match((await daemon.post('/v1/handles', { spawn: { argv: ['true'] }, name })).body, { errno: 'EEXIST' });
  };
  await daemon.upgrade();
  await check(daemon);
  await daemon.kill();
  await check(await Daemon.start(t, { directory: daemon.directory }));
});

t.test('each client has names of its own', async (t) => {
  const daemon = await startWithPolicy(t, { one: full, two: { ...full, admin: true } });
  const body = { spawn: { argv: ['sleep', '60'] }, name: 'mine' };
  const first = (await daemon.post('/v1/handles', body, as('one'))).body;
  t.match((await daemon.get('/v1/handles/@mine', as('two'))).body, { errno: 'EBADF' }, 'those of others need an id');
  const second = (await daemon.post('/v1/handles', body, as('two'))).body;
  t.equal((await daemon.get('/v1/handles/@mine', as('one'))).body.id, first.id);
  t.equal((await daemon.get('/v1/handles/@mine', as('two'))).body.id, second.id);
  const listed = (await daemon.get('/v1/handles?name=mine', as('two'))).body.handles;
  t.equal(listed.length, 2, 'the list of an admin has both');
});
