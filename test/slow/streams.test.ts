import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { Caller } from '../support/caller.ts';
import { Daemon, eventually, temporaryDirectory } from '../support/harness.ts';
import { difference, linesTo, writing } from '../support/lines.ts';
import { behindSlowReader } from '../support/slow-reader.ts';

const LINES = 300_000;
const wanted = linesTo(LINES);
const asRoot = process.getuid!() === 0 ? {} : { skip: 'needs root' };

/** Spawns, waits for the exit, and returns the captured output. */
async function run(daemon: Daemon, argv: string[], more: object): Promise<string> {
  const { id } = await daemon.spawn(argv, {}, more);
  await daemon.waitid(id);
  return more !== null && 'stdout' in more && more.stdout === 'capture'
    ? (await daemon.get(`/v1/handles/${id}/stdout`)).text
    : '';
}

t.test('300,000 lines, captured', async (t) => {
  const daemon = await Daemon.start(t);
  const stdout = 'capture';
  t.equal(difference(await run(daemon, writing(LINES), { stdout }), wanted), null);
  const byName = writing(LINES, '/dev/stdout');
  t.equal(difference(await run(daemon, byName, { stdout }), wanted), null, 'reopened by name');
  const [shell, option, loop] = writing(LINES, '/dev/stderr');
  const both = await run(daemon, [shell!, option!, loop!], { stdout, stderr: 'stdout' });
  t.equal(difference(both, wanted), null, 'through stderr, which is stdout');
  t.equal(await daemon.stop(), 0);
});

t.test('… as another user', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const found = await run(daemon, writing(LINES, '/dev/stdout'), { stdout: 'capture', user: 'nobody' });
  t.equal(difference(found, wanted), null);
  t.equal(await daemon.stop(), 0);
});

t.test('… to a file', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'lines');
  writeFileSync(file, 'before\n');
  await run(daemon, writing(LINES), { stdout: { file, append: true } });
  t.equal(difference(readFileSync(file, 'utf8'), `before\n${wanted}`), null, 'appended');
  await run(daemon, writing(LINES), { stdout: { file } });
  t.equal(difference(readFileSync(file, 'utf8'), wanted), null);
  t.equal(await daemon.stop(), 0);
});

t.test('… inherited, with a slow reader', async (t) => {
  const { child, socket, read } = await behindSlowReader(t, []);
  const caller = new Caller(socket);
  await eventually(() => existsSync(socket));
  await eventually(async () => (await caller.get('/livez')).status === 200);
  const { body } = await caller.post('/v1/handles', { spawn: { argv: writing(LINES), stdout: 'inherit' } }, 'one');
  await caller.post(`/v1/handles/${body.id}/waitid`, {}, 'two');
  child.kill('SIGTERM');
  await once(child, 'exit');
  t.equal(difference(await read, wanted), null);
});

t.test('… of --main, with a slow reader', async (t) => {
  for (const nonblocking of [false, true]) {
    const { child, read } = await behindSlowReader(t, ['--main', '--', ...writing(LINES)], { nonblocking });
    t.same(await once(child, 'exit'), [0, null]);
    t.equal(difference(await read, wanted), null, `a ${nonblocking ? 'non' : ''}blocking description`);
  }
});

t.test('… captured, while the daemon is replaced', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(writing(LINES), {}, { stdout: 'capture' });
  const ended = async (): Promise<boolean> => (await daemon.get(`/v1/handles/${id}`)).body.state === 'exited';
  let upgrades = 0;
  for (; upgrades < 3 || !(await ended()); upgrades += 1) await daemon.upgrade();
  t.comment(`${upgrades} upgrades`);
  t.equal(difference((await daemon.get(`/v1/handles/${id}/stdout`)).text, wanted), null);
  await eventually(async () => (await daemon.events(id)).filter(({ event }) => event === 'output').length === 1);
  t.equal(await daemon.stop(), 0);
  t.same(daemon.keepers, []);
});

t.test('… captured, while the daemon is killed', async (t) => {
  const directory = temporaryDirectory(t);
  let daemon = await Daemon.start(t, { directory });
  const { id } = await daemon.spawn(writing(LINES), {}, { stdout: 'capture' });
  const ended = async (): Promise<boolean> => (await daemon.get(`/v1/handles/${id}`)).body.state === 'exited';
  let kills = 0;
  for (; kills < 3 || !(await ended()); kills += 1) {
    await setTimeout(Math.random() * 200);
    daemon.child.kill('SIGKILL');
    await daemon.exited;
    daemon = await Daemon.start(t, { directory });
  }
  t.comment(`${kills} kills`);
  await eventually(async () => (await daemon.events(id)).some(({ event }) => event === 'output'));
  t.equal(difference((await daemon.get(`/v1/handles/${id}/stdout`)).text, wanted), null);
  t.equal(await daemon.stop(), 0);
  t.same(daemon.keepers, []);
});
