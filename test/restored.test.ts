import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Daemon, temporaryDirectory, withClocks } from './support/harness.ts';

const RESTORED =
  'the state directory was restored from a backup or copied: readers of events get a gap, and seqs continue far ahead';

/** Causes two more events. */
async function work(daemon: Daemon): Promise<void> {
  const { id } = await daemon.spawn(['true']);
  await daemon.post('/v1/poll', { handles: [id] });
}

const headOf = async (daemon: Daemon): Promise<number> => (await daemon.get('/v1/node')).body.head;

/** Checks the gap that every reader must get after older files were restored, with any cursor. */
async function requireReset(t: Test, daemon: Daemon, seen: number, what: string): Promise<void> {
  const head = await headOf(daemon);
  t.ok(head > seen, `${what}: seqs continue beyond ${seen}`);
  for (const since of [0, 2, seen - 1, seen]) {
    const { gap, events } = (await daemon.get(`/v1/events?since=${since}`)).body;
    t.strictSame({ gap, events }, { gap: { from: since + 1, to: head, reset: true }, events: [] }, `${what}: ${since}`);
    const socket = daemon.ws(`?since=${since}`);
    t.match(await socket.first(({ type }) => type === 'gap'), { from: since + 1, to: head, reset: true }, what);
    socket.close();
  }
  await work(daemon);
  const { gap, events } = (await daemon.get(`/v1/events?since=${head}`)).body;
  t.equal(gap, null);
  t.ok(
    events.every(({ seq }: { seq: number }) => seq > head),
    'no seq is used twice',
  );
  t.match((await daemon.get('/readyz')).body, { status: 'ok', checks: { history: /restored/ } });
}

/** Overwrites files in place, as cp(1) does: they keep their inodes. */
function overwrite(from: string, to: string): void {
  for (const name of readdirSync(from).filter((name) => /^(node|journal)\..*(?<!-shm)$/.test(name)))
    writeFileSync(join(to, name), readFileSync(join(from, name)));
}

t.test('an older copy of the state directory is detected, whenever and however it was made', async (t) => {
  for (const [what, isRunning, restore] of [
    ['a copy of a running daemon’s directory', true, (backup, state) => cpSync(backup, state, { recursive: true })],
    ['files overwritten in place', false, overwrite],
    ['files of a running daemon, overwritten in place', true, overwrite],
    [
      'the tables alone',
      false,
      (backup, state) => cpSync(join(backup, 'journal.sqlite'), join(state, 'journal.sqlite')),
    ],
    ['nothing', false, () => {}],
  ] as [string, boolean, (backup: string, state: string) => void][]) {
    const directory = temporaryDirectory(t);
    const [state, backup] = [join(directory, 'state'), join(directory, 'backup')];
    let daemon = await Daemon.start(t, { directory });
    await work(daemon);
    const kept = await daemon.spawn(['sh', '-c', 'exit 4']);
    await daemon.post('/v1/poll', { handles: [kept.id] });
    if (!isRunning) t.equal(await daemon.stop(), 0);
    else await daemon.events(kept.id);
    cpSync(state, backup, { recursive: true });
    if (!isRunning) daemon = await Daemon.start(t, { directory });
    for (let n = 0; n < 3; n += 1) await work(daemon);
    await daemon.events(kept.id);
    const seen = await headOf(daemon);
    if (isRunning) await daemon.kill();
    else t.equal(await daemon.stop(), 0);

    if (!what.includes('in place') && !what.includes('alone')) rmSync(state, { recursive: true });
    for (const suffix of ['-wal', '-shm']) rmSync(join(state, `journal.sqlite${suffix}`), { force: true });
    restore(backup, state);
    const heir = await Daemon.start(t, { directory });
    if (what !== 'nothing') {
      t.match(await heir.logged(RESTORED), { level: 50 }, what);
      t.match(
        (await heir.get(`/v1/handles/${kept.id}`)).body,
        { outcome: { exitCode: 4 } },
        `${what}: handles are restored`,
      );
      await requireReset(t, heir, seen, what);
    } else {
      const { gap } = (await heir.get(`/v1/events?since=${seen}`)).body;
      t.match(gap, { from: seen + 1 }, 'a removed directory is recognized by the machine’s own record');
    }
    const head = await headOf(heir);
    t.equal(await heir.stop(), 0);
    if (what !== 'the tables alone') continue;
    const next = await Daemon.start(t, { directory });
    t.equal(await headOf(next), head, 'it is reported once');
    t.equal(await next.stop(), 0);
    t.equal(readdirSync(join(directory, 'waitd-journals')).length, 1);
  }
});

t.test('without a runtime directory a copy is detected by its files, on any machine', async (t) => {
  const directory = temporaryDirectory(t);
  const daemon = await Daemon.start(t, { directory });
  await work(daemon);
  const seen = await headOf(daemon);
  t.equal(await daemon.stop(), 0);
  const elsewhere = temporaryDirectory(t);
  cpSync(join(directory, 'state'), join(elsewhere, 'state'), { recursive: true });
  const heir = await Daemon.start(t, { directory: elsewhere });
  await heir.logged(RESTORED);
  await requireReset(t, heir, seen, 'a clone');
  t.equal(await heir.stop(), 0);
});

t.test('on another boot seqs skip far ahead, and only cursors from the time between get a gap', async (t) => {
  const directory = temporaryDirectory(t);
  const clocks = join(directory, 'clocks');
  const env = withClocks(clocks);
  const start = (): Promise<Daemon> => Daemon.start(t, { directory, env });
  writeFileSync(clocks, '{"bootId":"one"}');
  let daemon = await start();
  await work(daemon);
  const head = await headOf(daemon);
  t.equal(await daemon.stop(), 0);
  writeFileSync(clocks, '{"bootId":"two"}');
  rmSync(join(directory, 'waitd-journals'), { recursive: true });
  daemon = await start();
  t.equal((await daemon.get(`/v1/events?since=0`)).body.gap, null, 'nothing was lost');
  t.equal((await daemon.get(`/v1/events?since=${head}`)).body.gap, null);
  // A disk snapshot was restored in the meantime: a reader has seen events that the journal lacks.
  t.match((await daemon.get(`/v1/events?since=${head + 100}`)).body.gap, { from: head + 101 });
  const { events } = await work(daemon).then(async () => (await daemon.get(`/v1/events?since=${head}`)).body);
  t.ok(events[0].seq > head + 1_000_000);
  t.notOk('history' in (await daemon.get('/readyz')).body.checks);
  t.equal(await daemon.stop(), 0);
});

t.test('a state directory that was renamed with its files is not a copy', async (t) => {
  const directory = temporaryDirectory(t);
  const daemon = await Daemon.start(t, { directory });
  await work(daemon);
  t.equal(await daemon.stop(), 0);
  const elsewhere = temporaryDirectory(t);
  mkdirSync(join(elsewhere, 'x'));
  renameSync(join(directory, 'state'), join(elsewhere, 'state'));
  const heir = await Daemon.start(t, { directory: elsewhere });
  t.match((await heir.get('/v1/events?since=0')).body, { gap: null, events: [{ seq: 1 }, { seq: 2 }] });
  t.notOk(heir.entries.some(({ msg }) => msg === RESTORED));
  t.equal(await heir.stop(), 0);
});
