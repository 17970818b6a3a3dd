import { spawn as nodeSpawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { Daemon, eventually } from './support/harness.ts';

const daemon = await Daemon.start(t);
await daemon.waitid((await daemon.spawn(['true'])).id);
const before = daemon.descriptors;

t.test('concurrent spawns: some exit, some stop, some fail', async (t) => {
  const daemon = await Daemon.start(t);
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const kinds = [['true'], ['sh', '-c', 'kill -STOP $$; exit 5'], ['/nonexistent']];
  const answers = await Promise.all(
    Array.from({ length: 450 }, (_, n) => daemon.post('/v1/handles', { spawn: { argv: kinds[n % 3] } })),
  );
  t.same(
    answers.map(({ status }) => status),
    Array.from({ length: 450 }, (_, n) => (n % 3 === 2 ? 422 : 201)),
  );
  const stopping = answers.filter((_, n) => n % 3 === 1).map(({ body }) => body.id);
  await socket.until(() => socket.events.filter(({ event }) => event === 'stopped').length === stopping.length);
  for (const id of stopping) {
    t.match((await daemon.waitid(id, { options: ['WSTOPPED'] })).body, { outcome: { signal: 'SIGSTOP' } });
    await daemon.signal(id, 'SIGCONT');
    t.match((await daemon.waitid(id)).body, { outcome: { exitCode: 5 } });
  }
  socket.close();
  t.equal(await daemon.stop(), 0);
});

t.test(
  '2000 short-lived children: each exit is reported once by event, parked wait and late subscription',
  async (t) => {
    const total = 2000;
    const socket = daemon.ws();
    await socket.first((frame) => frame.type === 'hello');
    const ids: string[] = [];
    const answers = new Map<string, number>();
    const one = async (n: number): Promise<void> => {
      const { id } = await daemon.spawn(['sh', '-c', `exit ${n % 256}`]);
      ids[n] = id;
      const { body } = await daemon.waitid(id);
      answers.set(id, body.outcome.exitCode);
    };
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < total) {
        const n = next;
        next += 1;
        await one(n);
      }
    };
    await Promise.all(Array.from({ length: 32 }, worker));
    const last = (await daemon.get('/v1/node')).body.head;
    await socket.first((frame) => frame.seq === last);
    const exits = new Map<string, number[]>();
    for (const event of socket.events.filter((frame) => frame.event === 'exited'))
      exits.set(event.handle, [...(exits.get(event.handle) ?? []), event.outcome.exitCode]);
    t.equal(exits.size, total);
    t.ok(
      ids.every((id, n) => exits.get(id)!.length === 1 && exits.get(id)![0] === n % 256),
      'one event each',
    );
    t.ok(
      ids.every((id, n) => answers.get(id) === n % 256),
      'one collected status each',
    );
    const late = daemon.ws();
    await late.first((frame) => frame.type === 'hello');
    for (let at = 0; at < total; at += 500) late.send({ type: 'subscribe', handles: ids.slice(at, at + 500) });
    await late.until(() => late.frames.filter((frame) => frame.type === 'subscribed').length === total / 500);
    t.equal(late.events.length, 3 * total);
    t.equal(new Set(late.events.map((event) => event.seq)).size, 3 * total);
    socket.close();
    late.close();
  },
);

t.test('handles are closed while waits are parked on them', async (t) => {
  await Promise.all(
    Array.from({ length: 100 }, async () => {
      const { id, process: child } = await daemon.spawn(['sleep', '100']);
      const wait = daemon.waitid(id);
      await daemon.request('DELETE', `/v1/handles/${id}`);
      process.kill(child.pid, 'SIGKILL');
      // The wait was parked first, or it was sent to a closed handle.
      const { body } = await wait;
      t.ok(body.outcome?.signal === 'SIGKILL' || body.errno === 'ESTALE');
    }),
  );
});

const asRoot = process.getuid!() === 0 ? {} : { skip: 'only root can choose the next pid' };

t.test('a pid that is reused while a handle is open is another process', asRoot, async (t) => {
  const reuse = async (): Promise<{
    id: string;
    twin: { id: string };
    first: { pid: number; inode: string | null };
  } | null> => {
    const { id, process: first } = await daemon.spawn(['sleep', '100']);
    const { body: twin } = await daemon.post('/v1/handles', { open: { pid: first.pid } });
    await daemon.signal(id, 'SIGKILL');
    await daemon.waitid(id);
    for (let tries = 0; tries < 20; tries += 1) {
      // The next fork in this namespace gets this pid (proc(5), ns_last_pid).
      writeFileSync('/proc/sys/kernel/ns_last_pid', String(first.pid - 1));
      const child = nodeSpawn('sleep', ['100']);
      t.teardown(() => child.kill('SIGKILL'));
      if (child.pid === first.pid) return { id, twin, first };
      child.kill('SIGKILL');
    }
    return null; // another process on this machine took it, and may keep it
  };
  let reused = await reuse();
  for (let tries = 0; tries < 50 && reused === null; tries += 1) reused = await reuse();
  if (reused === null) throw new Error('no pid could be reused: this machine starts too many processes');
  const { id, twin, first } = reused;
  t.match((await daemon.signal(id, 'SIGKILL')).body, { errno: 'ESRCH' });
  t.match((await daemon.signal(twin.id, 'SIGKILL', 'group')).body, { errno: 'ESRCH' });
  t.match((await daemon.waitid(id)).body, { errno: 'ECHILD' });
  // Without an inode only the pid identifies it.
  if (first.inode !== null)
    t.match((await daemon.post('/v1/handles', { open: { pid: first.pid, inode: first.inode } })).body, {
      status: 404,
      errno: 'ESRCH',
    });
  t.match((await daemon.get(`/v1/handles/${twin.id}`)).body, { state: 'exited' });
  t.match((await daemon.post('/v1/handles', { open: { pid: first.pid } })).body, {
    relation: 'foreign',
    state: 'running',
  });
});

t.test('processes that are killed at once are all reported', async (t) => {
  const handles = await Promise.all(Array.from({ length: 300 }, () => daemon.spawn(['sleep', '100'])));
  const all = daemon.post('/v1/poll', { handles: handles.map((handle) => handle.id), until: 'all' });
  spawnSync('kill', ['-9', ...handles.map((handle) => String(handle.process.pid))]);
  t.equal((await all).body.ready.length, 300);
});

t.test('the daemon has as many descriptors as before, and no zombies', async (t) => {
  const { body } = await daemon.get('/v1/handles?state=running&limit=1000');
  for (const { id } of body.handles) await daemon.request('DELETE', `/v1/handles/${id}`);
  const sockets = (): number =>
    readFileSync(`/proc/${daemon.pid}/net/unix`, 'utf8')
      .split('\n')
      .filter((line) => line.endsWith(daemon.socket)).length;
  // The test's own connections do not count.
  await eventually(() => daemon.zombies.length === 0);
  daemon.disconnect();
  await eventually(() => sockets() <= 2 && daemon.descriptors <= before);
  t.ok(daemon.descriptors <= before);
  t.equal(await daemon.stop(), 0);
});
