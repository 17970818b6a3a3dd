import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import { deaf, ignoresTerm } from './support/deaf.ts';
import { Daemon, eventually, stateOf } from './support/harness.ts';

const DAYS_24 = 24 * 24 * 3600 * 1000;

/** Waits until this many calls are parked, or this one is answered: an immediate exit is never counted as parked. */
async function isParked(daemon: Daemon, count: RegExp, call: Promise<unknown>): Promise<void> {
  let isAnswered = false;
  call.finally(() => {
    isAnswered = true;
  });
  await eventually(async () => isAnswered || count.test((await daemon.get('/metrics')).text));
}

/** Sends a terminate, and disconnects once the process has received its SIGTERM. */
async function hangUp(daemon: Daemon, id: string, graceMs: number): Promise<void> {
  const abort = new AbortController();
  const answer = daemon.post(`/v1/handles/${id}/terminate`, { graceMs }, { signal: abort.signal }).catch(() => null);
  await isParked(daemon, /^waitd_parked_calls [1-9]/m, answer);
  abort.abort();
  await answer;
  await eventually(async () => /^waitd_parked_calls 0$/m.test((await daemon.get('/metrics')).text));
}

t.test('SIGKILL is sent although the caller disconnects and the daemon is upgraded', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await deaf(daemon);
  await hangUp(daemon, id, 1500);
  await daemon.upgrade();
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.equal(await daemon.stop(), 0);
});

t.test('… although the daemon is killed: the next daemon sends it, at once if the grace has passed', async (t) => {
  for (const hasPassed of [true, false]) {
    const daemon = await Daemon.start(t);
    const { id, pid } = await deaf(daemon);
    await hangUp(daemon, id, 3000);
    daemon.child.kill('SIGKILL');
    await daemon.exited;
    t.not(stateOf(pid), null, 'the crash itself ends no process');
    if (hasPassed) await new Promise((resolve) => setTimeout(resolve, 3000));
    const heir = await Daemon.start(t, { directory: daemon.directory });
    await eventually(() => stateOf(pid) === null);
    t.match((await heir.get(`/v1/handles/${id}`)).body, { relation: 'foreign', state: 'exited' });
    t.equal(await heir.stop(), 0);
  }
});

t.test('… although the daemon stops and the handle is closed first; it reaches the group too', async (t) => {
  const daemon = await Daemon.start(t);
  const script = `trap "exit 0" TERM; sh -c '${ignoresTerm}' & wait; exit 1`;
  const group = await deaf(daemon, script);
  const alone = await deaf(daemon);
  for (const { id } of [group, alone]) {
    await hangUp(daemon, id, 1000);
    t.equal((await daemon.request('DELETE', `/v1/handles/${id}`)).status, 204);
  }
  t.not(stateOf(group.pids[0]!), null);
  await eventually(() => stateOf(group.pids[0]!) === null && stateOf(alone.pid) === null);
  const last = await deaf(daemon);
  await hangUp(daemon, last.id, 500);
  t.equal((await daemon.request('DELETE', `/v1/handles/${last.id}`)).status, 204);
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await eventually(() => stateOf(last.pid) === null);
  t.equal(await heir.stop(), 0);
});

t.test('each process has one deadline: a shorter grace moves it, a longer one does not', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await deaf(daemon);
  const first = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 });
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  const second = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: 300 });
  await isParked(daemon, /^waitd_parked_calls 2$/m, second);
  const third = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 });
  for (const answer of [first, second, third])
    t.match(await answer, { status: 200, body: { outcome: { reason: 'killed', signal: 'SIGKILL' } } });
  t.equal(await daemon.stop(), 0);
});

t.test('500 calls that disconnect use no descriptors and leave nothing behind', async (t) => {
  const daemon = await Daemon.start(t);
  const { id, pid } = await deaf(daemon);
  const warm = daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 }).catch(() => null);
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  const before = daemon.descriptors;
  for (let round = 0; round < 10; round += 1) {
    const abort = new AbortController();
    const answers = Array.from({ length: 50 }, () =>
      daemon.post(`/v1/handles/${id}/terminate`, { graceMs: DAYS_24 }, { signal: abort.signal }).catch(() => null),
    );
    await eventually(async () => /^waitd_parked_calls 51$/m.test((await daemon.get('/metrics')).text));
    abort.abort();
    await Promise.all(answers);
  }
  await eventually(() => daemon.descriptors <= before);
  const written = (): number => {
    const journal = new DatabaseSync(join(daemon.directory, 'state', 'journal.sqlite'), { readOnly: true });
    using close = new DisposableStack();
    close.defer(() => journal.close());
    return Number(journal.prepare('SELECT count(*) n FROM terminations').get()!.n);
  };
  process.kill(pid, 'SIGKILL');
  await warm;
  t.equal(await daemon.stop(), 0);
  t.equal(written(), 0, 'the deadline is dropped with the process');
});
