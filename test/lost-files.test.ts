import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, Gate, type RequestOptions } from './support/harness.ts';

const keyed = (key: string): RequestOptions => ({ headers: { 'idempotency-key': key } });

t.test('an upgrade over files that were removed loses nothing', async (t) => {
  for (const [what, remove] of [
    ['the state directory', (state: string) => rmSync(state, { recursive: true })],
    ['the tables', (state: string) => rmSync(join(state, 'journal.sqlite'))],
    [
      'every file of the journal',
      (state: string) => ['node.json', 'journal.sqlite', 'journal.log'].map((name) => rmSync(join(state, name))),
    ],
  ] as const) {
    const daemon = await Daemon.start(t);
    const state = join(daemon.directory, 'state');
    const living = await daemon.spawn(['sleep', '100'], { labels: { a: 'b' }, nonblocking: true });
    // More than a pipe holds, so that it ends only if its output is read on.
    const gate = new Gate(t);
    const script = 'read -r line < "$0"; head -c 300000 /dev/zero; echo end';
    const writing = await daemon.spawn(['sh', '-c', script, gate.path], {}, { stdout: 'capture' });
    const body = { spawn: { argv: ['sh', '-c', 'exit 5'] } };
    const ended = (await daemon.post('/v1/handles', body, keyed('k'))).body;
    await daemon.post('/v1/poll', { handles: [ended.id] });
    await daemon.events(ended.id); // reads from the tables, so that everything has been applied
    const { node, head } = (await daemon.get('/v1/node')).body;
    remove(state);

    t.match(await daemon.get('/readyz'), { status: 503, body: { checks: { journal: /was removed|replaced/ } } }, what);
    t.equal((await daemon.get('/livez')).status, 200);
    for (const [spawn, key] of [
      [{ argv: ['true'] }, {}],
      [{ argv: ['true'], stdout: 'capture' }, {}],
      [{ argv: ['true'] }, keyed('other')],
    ] as const)
      t.match(
        await daemon.post('/v1/handles', { spawn }, key),
        { status: 503, body: { errno: 'ENOENT', detail: /^The state directory of the daemon/ } },
        'a spawn that cannot be recorded is not started',
      );
    await daemon.upgrade();
    t.equal((await daemon.get('/readyz')).status, 200);
    t.match((await daemon.get('/v1/node')).body, { node, head }, 'the node id is unchanged');
    t.match((await daemon.get(`/v1/handles/${living.id}`)).body, {
      relation: 'child',
      state: 'running',
      labels: { a: 'b' },
    });
    t.match((await daemon.waitid(living.id)).body, { errno: 'EAGAIN' });
    gate.open();
    t.match((await daemon.waitid(writing.id)).body, { outcome: { exitCode: 0 } });
    const { text: written } = await daemon.get(`/v1/handles/${writing.id}/stdout`);
    t.ok(written.length === 300_004 && written.endsWith('end\n'), 'captured output continues');
    t.match((await daemon.get('/v1/events?since=0')).body, { gap: null });
    t.equal((await daemon.post('/v1/handles', body, keyed('k'))).body.id, ended.id, 'keys are restored');
    t.match((await daemon.waitid(ended.id)).body, { outcome: { exitCode: 5 } }, 'statuses are restored');
    await daemon.signal(living.id, 'SIGKILL');
    await eventually(async () => (await daemon.get(`/v1/handles/${living.id}`)).body.state === 'exited');
    t.match((await daemon.waitid(living.id)).body, { outcome: { signal: 'SIGKILL' } });
    const captured = await daemon.spawn(['echo', 'hello'], {}, { stdout: 'capture' });
    await daemon.post('/v1/poll', { handles: [captured.id] });
    t.equal((await daemon.get(`/v1/handles/${captured.id}/stdout`)).text, 'hello\n');
    const second = Daemon.begin(t, { directory: daemon.directory });
    t.not(await second.exited, 0, 'the new directory is locked as well');
    t.equal(await daemon.stop(), 0);
  }
});

t.test('a state directory that is moved away and back causes no lasting failure', async (t) => {
  const daemon = await Daemon.start(t);
  const state = join(daemon.directory, 'state');
  const { id } = await daemon.spawn(['sleep', '100']);
  renameSync(state, `${state}-aside`);
  t.equal((await daemon.get('/readyz')).status, 503);
  await daemon.signal(id, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [id] });
  await eventually(() => daemon.zombies.length === 1); // the status stays in the kernel
  renameSync(`${state}-aside`, state);
  await eventually(async () => (await daemon.get('/readyz')).status === 200);
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.waitid(id)).body, { outcome: { signal: 'SIGKILL' } });
  t.match((await heir.get('/v1/events?since=0')).body, { gap: null });
  t.notOk(readdirSync(state).some((name) => name.includes('damaged')));
  t.ok(existsSync(join(state, 'node.json')));
  t.equal(await heir.stop(), 0);
});
