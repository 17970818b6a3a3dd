import { rmSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  commandLineOf,
  Daemon,
  type RequestOptions,
  temporaryDirectory,
  withClocks,
  withFaults,
} from './support/harness.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const keyed = (key: string): RequestOptions => ({ headers: { 'idempotency-key': key } });

/** Returns an environment for a daemon, and a function that moves its clocks. */
function clocks(t: Test): { env: Record<string, string>; move: (clocks: object) => void } {
  const file = join(t.testdir(), 'clocks');
  return { env: withClocks(file), move: (clocks) => writeFileSync(file, JSON.stringify(clocks)) };
}

/** Resolves once the daemon has expired what is due: collected handles expire after 100 ms. */
async function retained(daemon: Daemon): Promise<void> {
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const { id } = await daemon.spawn(['true']);
  await daemon.post('/v1/poll', { handles: [id] });
  await daemon.waitid(id);
  await socket.first(({ event, handle }) => event === 'expired' && handle === id);
  socket.close();
}

t.test('a wall clock that jumps by days expires nothing; elapsed time does', async (t) => {
  const { env, move } = clocks(t);
  const args = ['--keep-collected', '100ms', '--keep-uncollected', '1h', '--keep-events', '1h'];
  const daemon = await Daemon.start(t, { env, args });
  const { id } = await daemon.spawn(['sh', '-c', 'exit 3']);
  await daemon.post('/v1/poll', { handles: [id] });
  for (const wallMs of [2 * DAY, -400 * DAY]) {
    move({ wallMs });
    await retained(daemon);
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { outcome: { exitCode: 3 } });
    t.equal((await daemon.get('/v1/node')).body.oldest, 1, 'nor do events');
    await daemon.upgrade();
  }
  t.equal(await daemon.stop(), 0);
  move({ wallMs: 30 * DAY });
  const heir = await Daemon.start(t, { env, args, directory: daemon.directory });
  await retained(heir);
  t.match((await heir.get(`/v1/handles/${id}`)).body, { outcome: { exitCode: 3 } }, 'after a restart too');
  move({ bootMs: 2 * HOUR });
  await retained(heir);
  t.match((await heir.get(`/v1/handles/${id}`)).body, { errno: 'ESTALE' });
  t.ok((await heir.get('/v1/node')).body.oldest > 1);
  t.equal(await heir.stop(), 0);
});

t.test('ages continue across a boot, whatever the wall clock shows', async (t) => {
  const { env, move } = clocks(t);
  const args = ['--keep-collected', '100ms', '--keep-uncollected', '10h'];
  const directory = temporaryDirectory(t);
  const start = (): Promise<Daemon> => Daemon.start(t, { env, args, directory });
  move({ bootId: 'one' });
  const one = await start();
  const { id } = await one.spawn(['sh', '-c', 'exit 3']);
  await one.post('/v1/poll', { handles: [id] });
  move({ bootId: 'one', bootMs: 6 * HOUR });
  await retained(one);
  t.equal(await one.stop(), 0);
  // The machine was off for a month, and its wall clock is not set.
  const fresh = -1000 * Math.floor(uptime());
  move({ bootId: 'two', bootMs: fresh, wallMs: 30 * DAY });
  const two = await start();
  await retained(two);
  t.match((await two.get(`/v1/handles/${id}`)).body, { outcome: { exitCode: 3 } });
  move({ bootId: 'two', bootMs: fresh + 5 * HOUR, wallMs: -30 * DAY });
  await retained(two);
  t.match((await two.get(`/v1/handles/${id}`)).body, { errno: 'ESTALE' }, '6 h before the boot, and 5 h after');
  t.equal(await two.stop(), 0);
});

t.test('a key lives for a day from its answer, also without its handle', async (t) => {
  const { env, move } = clocks(t);
  const daemon = await Daemon.start(t, { env, args: ['--keep-collected', '100ms'] });
  const body = { spawn: { argv: ['true'] } };
  const first = await daemon.post('/v1/handles', body, keyed('k'));
  const { id } = first.body;
  await daemon.post('/v1/poll', { handles: [id] });
  const taken = await daemon.waitid(id, undefined, keyed('take'));
  await retained(daemon);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { errno: 'ESTALE' }, 'the handle has expired');
  move({ wallMs: 2 * DAY, bootMs: 23 * HOUR });
  await retained(daemon);
  t.equal((await daemon.post('/v1/handles', body, keyed('k'))).text, first.text);
  t.equal((await daemon.waitid(id, undefined, keyed('take'))).text, taken.text, 'a lost status');
  move({ wallMs: -2 * DAY, bootMs: 25 * HOUR });
  await retained(daemon);
  t.not((await daemon.post('/v1/handles', body, keyed('k'))).body.id, id);
  t.equal(await daemon.stop(), 0);
});

t.test('a spawn that was pending when the daemon died is found, after any jump of the wall clock', async (t) => {
  for (const wallMs of [-10_000, DAY]) {
    const { env, move } = clocks(t);
    const fault = join(t.testdir(), 'fault');
    const faults = withFaults(fault);
    const both = { ...env, ...faults, NODE_OPTIONS: `${env.NODE_OPTIONS} ${faults.NODE_OPTIONS}` };
    const daemon = await Daemon.start(t, { env: both });
    const body = { spawn: { argv: ['sleep', '83'] } };
    writeFileSync(fault, 'die after the release');
    await t.rejects(daemon.post('/v1/handles', body, keyed('k')));
    await daemon.exited;
    rmSync(fault, { force: true });
    move({ wallMs });
    const heir = await Daemon.start(t, { directory: daemon.directory, env });
    const { body: handle } = await heir.post('/v1/handles', body, keyed('k'));
    t.match(handle, { state: 'running', relation: 'foreign' }, String(wallMs));
    t.match(commandLineOf(handle.process.pid), /sleep\0/);
    t.equal((await heir.signal(handle.id, 'SIGKILL')).status, 204);
    t.equal(await heir.stop(), 0);
  }
});
