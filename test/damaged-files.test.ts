import { closeSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon } from './support/harness.ts';

/** Overwrites a file from its start, without changing its size. */
function spoil(path: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(4096, 0x5a), 0, 4096, 0);
  closeSync(fd);
}

t.test('an upgrade with damaged or older tables keeps live handles open', async (t) => {
  for (const [what, damage] of [
    ['written over', (tables: string) => spoil(tables)],
    ['truncated', (tables: string) => truncateSync(tables, 5000)],
    ['emptied', (tables: string) => truncateSync(tables, 0)],
    [
      'replaced by older ones',
      (tables: string, older: Buffer) => {
        rmSync(tables);
        rmSync(`${tables}-wal`);
        writeFileSync(tables, older);
      },
    ],
  ] as [string, (tables: string, older: Buffer) => void][]) {
    const daemon = await Daemon.start(t);
    const state = join(daemon.directory, 'state');
    const older = readFileSync(join(state, 'journal.sqlite')); // later changes are in the write-ahead log
    const one = await daemon.spawn(['sleep', '100'], { labels: { a: 'b' } });
    const two = (await daemon.post('/v1/handles', { dup: one.id })).body;
    const watch = (await daemon.post('/v1/watches', { match: { exe: '/no/such/program' } })).body;
    const { head } = (await daemon.get('/v1/node')).body;
    await daemon.events(one.id); // reads from the tables, so that everything has been applied
    damage(join(state, 'journal.sqlite'), older);
    await daemon.upgrade();
    for (const { id } of [one, two])
      t.match((await daemon.get(`/v1/handles/${id}`)).body, { relation: 'child', state: 'running' }, what);
    t.match((await daemon.get('/v1/handles?label=a=b')).body.handles, [{ id: one.id }]);
    t.equal((await daemon.get(`/v1/watches/${watch.id}`)).status, 200, 'watches too');
    t.match((await daemon.get('/v1/events?since=0')).body.gap, { from: 1 });
    t.ok((await daemon.get('/v1/node')).body.head >= head);
    t.match((await daemon.get('/readyz')).body, { status: 'ok', checks: { history: /^lost/ } });
    await daemon.logged('the journal was damaged and is replaced by a new one: its records are lost');
    await daemon.signal(one.id, 'SIGKILL');
    t.match((await daemon.waitid(one.id)).body, { outcome: { signal: 'SIGKILL' } });
    t.equal(await daemon.stop(), 0);
    if (what !== 'written over') continue;
    const heir = await Daemon.start(t, { directory: daemon.directory });
    t.match(
      (await heir.get(`/v1/handles/${two.id}`)).body,
      { outcome: { signal: 'SIGKILL' } },
      'everything is written',
    );
    t.equal(await heir.stop(), 0);
  }
});
