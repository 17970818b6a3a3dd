import { spawn as nodeSpawn } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { MIGRATIONS } from '../src/journal/schema.ts';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';

t.test('handles expire: collected ones first, others later, never live ones; ESTALE differs from EBADF', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--keep-collected', '200ms', '--keep-uncollected', '2s'] });
  const socket = daemon.ws('?since=0');
  const collected = await daemon.spawn(['true']);
  const uncollected = await daemon.spawn(['true']);
  const live = await daemon.spawn(['sleep', '100']);
  const closed = await daemon.spawn(['true']);
  await daemon.waitid(collected.id);
  await daemon.request('DELETE', `/v1/handles/${closed.id}`);
  const expired = (id: string) => socket.first(({ event, handle }) => event === 'expired' && handle === id);
  t.match(await expired(collected.id), { outcome: { reason: 'exited', exitCode: 0 }, process: collected.process });
  t.match((await daemon.get(`/v1/handles/${uncollected.id}`)).body, { state: 'exited' }, 'for longer');
  await expired(uncollected.id);
  t.match((await daemon.get(`/v1/handles/${live.id}`)).body, { state: 'running' });
  for (const { id } of [collected, uncollected, closed]) {
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/waitid'],
      ['POST', '/terminate'],
    ] as const)
      t.match(await daemon.request(method, `/v1/handles/${id}${path}`), { status: 410, body: { errno: 'ESTALE' } });
    t.match(await daemon.get(`/v1/handles/${id}`, { tcp: true }), { body: { errno: 'ESTALE' } }, 'the same client');
  }
  const altered = collected.id.slice(0, -1) + (collected.id.endsWith('A') ? 'B' : 'A');
  for (const id of [altered, 'h_nosuch', `h_${'A'.repeat(28)}`, 'h_', 'x'])
    t.match(await daemon.get(`/v1/handles/${id}`), { status: 404, body: { errno: 'EBADF' } }, id);
  t.same(
    (await daemon.events(collected.id)).map(({ event }) => event),
    ['opened', 'exited', 'settled', 'expired'],
    'its events are retained like all others',
  );
  t.same(
    (await daemon.get('/v1/handles')).body.handles.map(({ id }: { id: string }) => id),
    [live.id],
  );
  socket.close();
  await daemon.signal(live.id, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

t.test('the id of another client’s handle is unknown, also after it expired', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--insecure-no-auth', '--keep-collected', '100ms'] });
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  await eventually(async () => (await daemon.get(`/v1/handles/${id}`)).status === 410);
  const stranger = await fetch(`http://127.0.0.1:${daemon.port}/v1/handles/${id}`);
  t.match(await stranger.json(), { errno: 'EBADF' });
  t.equal(await daemon.stop(), 0);
});

t.test('events expire after their time, and a gap reports it', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--keep-events', '300ms', '--keep-collected', '100ms'] });
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  await eventually(async () => (await daemon.get('/v1/node')).body.oldest > 4);
  const { head } = (await daemon.get('/v1/node')).body;
  t.match((await daemon.get('/v1/events?since=0')).body, { events: [], gap: { from: 1, to: head }, next: head });
  t.match(await daemon.get(`/v1/handles/${id}`), { body: { errno: 'ESTALE' } }, 'only its id is left');
  t.match((await daemon.get(`/v1/events?handle=${id}`)).body, { events: [] });
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match(await heir.get(`/v1/handles/${id}`), { body: { errno: 'ESTALE' } }, 'after a restart too');
  t.equal((await heir.get('/v1/node')).body.head, head, 'cursors stay valid');
  t.equal(await heir.stop(), 0);
});

t.test('the journal holds only what is retained', async (t) => {
  const args = ['--keep-collected', '100ms', '--keep-events', '300ms', '--max-events', '1000'];
  const directory = temporaryDirectory(t);
  const journal = join(directory, 'state', 'journal.sqlite');
  const round = async (daemon: Daemon): Promise<void> => {
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let n = 0; n < 25; n += 1) {
          const { id } = await daemon.spawn(['true'], { labels: { some: 'label' } });
          await daemon.waitid(id);
          if (n % 2 === 0) await daemon.request('DELETE', `/v1/handles/${id}`);
        }
      }),
    );
    const { head } = (await daemon.get('/v1/node')).body;
    await eventually(async () => (await daemon.get('/v1/node')).body.oldest > head);
    await eventually(async () => (await daemon.get('/v1/handles')).body.handles.length === 0);
  };
  for (let start = 0; start < 2; start += 1) {
    const daemon = await Daemon.start(t, { args, directory });
    for (let n = 0; n < 3; n += 1) await round(daemon);
    t.equal(await daemon.stop(), 0);
    // How far a round gets before its first events expire depends on the machine. Hence the bound is the size of 2,000
    // events; everything that was written is three times as much.
    const { size } = statSync(journal);
    t.ok(size < 1_500_000, `bytes: ${size}`);
  }
  const db = new DatabaseSync(journal, { readOnly: true });
  for (const table of ['processes', 'handles', 'labels', 'collected', 'keys', 'holes'])
    t.equal(db.prepare(`SELECT count(*) n FROM ${table}`).get()!.n, 0, table);
  db.close();
});

t.test('a journal of the first version is migrated', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'state'), { mode: 0o700 });
  const db = new DatabaseSync(join(directory, 'state', 'journal.sqlite'));
  const ending = (code: number): string =>
    JSON.stringify({ outcome: { reason: 'exited', exitCode: code }, siginfo: null, rusage: null, reaped: true });
  const client = `uid:${process.getuid!()}`;
  db.exec(`${MIGRATIONS[0]}
    INSERT INTO meta VALUES ('node', 'n_1'), ('head', '0');
    INSERT INTO processes VALUES (1, 'boot', 10, '1', 0, '["a"]', 'child', 'exited', '${ending(3)}');
    INSERT INTO processes VALUES (2, 'boot', 11, '2', 0, '["b"]', 'child', 'exited', '${ending(4)}');
    INSERT INTO processes VALUES (3, 'boot', 12, '3', 0, '["c"]', 'child', 'running', NULL);
    INSERT INTO descriptions VALUES (1, 1, 1), (2, 2, 0), (3, 3, 0);
    INSERT INTO handles VALUES (0, 'h_1', '${client}', 1, '{"x":"y"}', 0, NULL), (2, 'h_2', '${client}', 2, '{}', 0, 'closed');
    INSERT INTO handles VALUES (5, 'h_3', '${client}', 3, '{}', 0, NULL);
    INSERT INTO labels VALUES ('${client}', 'x', 'y', 0);
    INSERT INTO collected VALUES (1, '${client}');
    INSERT INTO events VALUES (3, '${client}', 'h_2', 'closed', ${Date.now()}, '{}');
    INSERT INTO events VALUES (6, '${client}', 'h_3', 'opened', ${Date.now()}, '{}');
    PRAGMA user_version = 1;`);
  db.close();
  const daemon = await Daemon.start(t, { directory });
  t.match((await daemon.get('/v1/handles/h_1')).body, {
    nonblocking: true,
    labels: { x: 'y' },
    collected: true,
    outcome: { exitCode: 3 },
  });
  t.match((await daemon.get('/v1/handles?label=x=y')).body.handles, [{ id: 'h_1' }]);
  t.match((await daemon.get('/v1/handles/h_2')).body, { errno: 'ESTALE' });
  t.match((await daemon.get('/v1/handles/h_3')).body, { outcome: { reason: 'unknown' } }, 'of another boot');
  t.equal(await daemon.stop(), 0);
});

t.test('a journal of a later version is left alone', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'state'), { mode: 0o700 });
  const db = new DatabaseSync(join(directory, 'state', 'journal.sqlite'));
  db.exec('PRAGMA user_version = 99');
  db.close();
  await t.rejects(Daemon.start(t, { directory }), /of version 99/);
});

t.test(
  'a foreign process that its parent never reaps expires after its end, and its descriptor is closed',
  async (t) => {
    const args = ['--keep-collected=300ms', '--keep-uncollected=300ms'];
    const daemon = await Daemon.start(t, { args });
    const parent = nodeSpawn('sh', ['-c', 'sleep 1000 & echo $!; sleep 1000 & echo $!; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => parent.kill('SIGKILL'));
    const lines = createInterface({ input: parent.stdout })[Symbol.asyncIterator]();
    const pids = [Number((await lines.next()).value), Number((await lines.next()).value)] as const;
    await daemon.get('/livez');
    const before = daemon.descriptors;
    const [first, second] = await Promise.all(
      pids.map(async (pid) => (await daemon.post('/v1/handles', { open: { pid } })).body),
    );
    process.kill(pids[0], 'SIGKILL');
    await eventually(async () => (await daemon.get(`/v1/handles/${first.id}`)).status === 410);
    t.equal(stateOf(pids[0]), 'Z');
    t.match(
      (await daemon.events(first.id)).map(({ event }) => event),
      ['opened', 'exited', 'expired'],
    );
    t.match((await daemon.get(`/v1/handles/${second.id}`)).body, { state: 'running' }, 'a live one is retained');
    daemon.child.kill('SIGKILL');
    await daemon.exited;
    process.kill(pids[1], 'SIGKILL');
    const heir = await Daemon.start(t, { args, directory: daemon.directory });
    await eventually(async () => (await heir.get(`/v1/handles/${second.id}`)).status === 410);
    t.equal(stateOf(pids[1]), 'Z', 'also if it ended while no daemon ran');
    await eventually(() => heir.descriptors <= before);
    t.equal(await heir.stop(), 0);
  },
);
