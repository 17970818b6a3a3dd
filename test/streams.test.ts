import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, Gate, temporaryDirectory } from './support/harness.ts';
import { difference, linesTo, writing } from './support/lines.ts';
import { behindSlowReader } from './support/slow-reader.ts';

const root = process.getuid!() === 0;
const asRoot = root ? {} : { skip: 'needs root' };
/** Options of tests that mount a small disk in a mount namespace: a container may forbid either. */
const mayMount =
  spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0
    ? {}
    : { skip: 'mounting is not permitted here' };
const LINES = 20_000;
const ENDED = { headers: { prefer: 'wait=60' } };

/** Spawns, waits for the exit, and returns the outcome and the output. */
// biome-ignore lint/suspicious/noExplicitAny: the tests state the expected values
async function run(daemon: Daemon, argv: string[], more: object = {}): Promise<any> {
  const { body } = await daemon.post(
    '/v1/handles',
    { spawn: { argv, stdout: 'capture', stderr: 'capture', ...more } },
    ENDED,
  );
  const read = async (stream: string): Promise<string> => (await daemon.get(`/v1/handles/${body.id}/${stream}`)).text;
  return { ...body, stdout: await read('stdout'), stderr: await read('stderr') };
}

/** Returns the disk use of captured output, in bytes. */
const onDisk = ({ directory }: Daemon, name: string): number =>
  512 * statSync(join(directory, 'state', 'output', name)).blocks;

t.test('a program may open its captured streams by name, which truncates nothing', async (t) => {
  const daemon = await Daemon.start(t);
  const script =
    'echo one; echo two > /dev/stdout; : > /proc/self/fd/1; echo three >> /dev/stdout; echo four > /dev/stderr';
  t.match(await run(daemon, ['sh', '-c', script]), { stdout: 'one\ntwo\nthree\n', stderr: 'four\n' });
  const both = 'echo one; echo two >&2; echo three > /dev/stderr; echo four';
  const { id } = await daemon.spawn(['sh', '-c', both], {}, { stdout: 'capture', stderr: 'stdout' });
  await daemon.waitid(id);
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text, 'one\ntwo\nthree\nfour\n');
  t.equal(await daemon.stop(), 0);
});

t.test('a program that runs as another user may too', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const script = 'echo one > /dev/stdout; echo two > /dev/stderr; id -u > /proc/self/fd/1';
  t.match(await run(daemon, ['sh', '-c', script], { user: 'nobody' }), { stdout: 'one\n65534\n', stderr: 'two\n' });
  const file = join(daemon.directory, 'made');
  const again = 'echo one; echo two >> /dev/stdout';
  await run(daemon, ['sh', '-c', again], { user: 'nobody', stdout: { file, append: true } });
  t.equal(readFileSync(file, 'utf8'), 'one\ntwo\n', 'a file created for it belongs to it');
  await run(daemon, ['sh', '-c', again], { user: 'nobody', stdout: { file, append: true } });
  t.equal(readFileSync(file, 'utf8'), 'one\ntwo\none\ntwo\n', 'and is appended to');
  t.equal(await daemon.stop(), 0);
});

t.test('a captured stream is not storage: its size cannot be set and no space reserved', async (t) => {
  const daemon = await Daemon.start(t);
  const script = 'truncate -s 8T /dev/stdout; fallocate -n -l 100M /dev/stdout; printf whole';
  const { stdout, outcome } = await run(daemon, ['sh', '-c', script]);
  t.match(outcome, { reason: 'exited', exitCode: 0 });
  t.equal(stdout, 'whole');
  t.equal(statSync(join(daemon.directory, 'state', 'output', '1.stdout')).size, 5);
  t.equal(await daemon.stop(), 0);
});

t.test('a client that has received an exit can read all output before it', async (t) => {
  const daemon = await Daemon.start(t);
  for (let round = 0; round < 20; round += 1) {
    const { id } = await daemon.spawn(['sh', '-c', `printf %s ${round}`], {}, { stdout: 'capture' });
    await daemon.waitid(id);
    t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text, String(round));
  }
  const { id } = await daemon.spawn(['head', '-c', '3000000', '/dev/zero'], {}, { stdout: 'capture' });
  await daemon.waitid(id);
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text.length, 3_000_000);
  t.equal(await daemon.stop(), 0);
});

t.test('the limit holds while the daemon is stopped: the program blocks, and nothing is lost', async (t) => {
  const limit = 2 ** 20;
  const daemon = await Daemon.start(t, { args: ['--max-output', String(limit)] });
  const gate = new Gate(t);
  const total = 100_000_000;
  const argv = ['sh', '-c', `read -r line < ${gate.path}; exec head -c ${total} /dev/zero`];
  const { id, process: child } = await daemon.spawn(argv, {}, { stdout: 'capture' });
  daemon.child.kill('SIGSTOP');
  gate.open();
  await eventually(() => readFileSync(`/proc/${child.pid}/wchan`, 'utf8').includes('pipe'));
  t.equal(onDisk(daemon, '1.stdout'), 0);
  daemon.child.kill('SIGCONT');
  await daemon.waitid(id);
  const { headers, text } = await daemon.get(`/v1/handles/${id}/stdout`);
  t.equal(Number(headers['waitd-offset']) + text.length, total);
  t.ok(onDisk(daemon, '1.stdout') <= limit + limit / 8 + 2 ** 19);
  t.equal(await daemon.stop(), 0);
});

t.test('lines through every kind of stream stay whole', async (t) => {
  const daemon = await Daemon.start(t);
  const wanted = linesTo(LINES);
  const captured = await run(daemon, writing(LINES));
  t.equal(difference(captured.stdout, wanted), null, 'captured');
  const reopened = await run(daemon, writing(LINES, '/dev/stderr'), { stdout: 'null' });
  t.equal(difference(reopened.stderr, wanted), null, 'captured, and reopened by name');
  const file = join(daemon.directory, 'lines');
  writeFileSync(file, 'before\n');
  await run(daemon, writing(LINES), { stdout: { file, append: true } });
  t.equal(difference(readFileSync(file, 'utf8'), `before\n${wanted}`), null, 'a file, appended to');
  await run(daemon, writing(LINES), { stdout: { file } });
  t.equal(difference(readFileSync(file, 'utf8'), wanted), null, 'a file');
  t.equal(await daemon.stop(), 0);
});

t.test('no output is lost while the daemon is replaced, killed or absent', async (t) => {
  const gate = new Gate(t);
  const first = await Daemon.start(t);
  const { directory } = first;
  const [shell, option, loop] = writing(LINES);
  const argv = [shell!, option!, `${loop}; read -r line < ${gate.path}; printf last`];
  const { id } = await first.spawn(argv, {}, { stdout: 'capture' });
  await first.upgrade();
  first.child.kill('SIGKILL');
  await first.exited;
  const second = await Daemon.start(t, { directory });
  const written = async (daemon: Daemon): Promise<number> => (await daemon.get(`/v1/handles/${id}/stdout`)).text.length;
  const wanted = linesTo(LINES);
  await eventually(async () => (await written(second)) === wanted.length);
  second.child.kill('SIGKILL');
  await second.exited;
  gate.open(); // it ends while no daemon runs
  const third = await Daemon.start(t, { directory });
  await eventually(async () => (await third.events(id)).some(({ event }) => event === 'output'));
  t.equal(difference((await third.get(`/v1/handles/${id}/stdout`)).text, `${wanted}last`), null);
  t.same(third.keepers, [], 'the keepers ended with the pipes that they held');
  t.equal(await third.stop(), 0);
});

t.test('a killed keeper is replaced, and one that holds nothing ends with the daemon in every case', async (t) => {
  const daemon = await Daemon.start(t);
  t.same(daemon.keepers, []);
  const gate = new Gate(t);
  const { id } = await daemon.spawn(['sh', '-c', `read -r line < ${gate.path}; echo end`], {}, { stdout: 'capture' });
  const [keeper] = daemon.keepers;
  process.kill(keeper!, 'SIGKILL');
  const holds = (pid: number): boolean =>
    readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('pipe:'));
  await eventually(() => daemon.keepers.some((pid) => pid !== keeper && holds(pid)));
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  gate.open();
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await eventually(async () => (await heir.events(id)).some(({ event }) => event === 'output'));
  t.equal((await heir.get(`/v1/handles/${id}/stdout`)).text, 'end\n');
  await run(heir, ['true']);
  t.equal(heir.keepers.length, 1);
  heir.child.kill('SIGKILL');
  await heir.exited;
  await eventually(() => heir.keepers.length === 0);
});

t.test('on a full disk the program blocks, readiness reports it, and nothing is lost', mayMount, async (t) => {
  const directory = temporaryDirectory(t);
  const state = join(directory, 'state');
  mkdirSync(state);
  t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m,mode=0700', 'tmpfs', state]).status, 0);
  t.teardown(() => spawnSync('umount', ['-l', state]));
  const daemon = await Daemon.start(t, { directory });
  const total = 30_000_000;
  const { id } = await daemon.spawn(['head', '-c', String(total), '/dev/zero'], {}, { stdout: 'capture' });
  await eventually(async () => /ENOSPC/.test((await daemon.get('/readyz')).body.checks.output));
  t.equal((await daemon.get('/livez')).status, 200);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.equal(spawnSync('mount', ['-o', 'remount,size=64m', state]).status, 0);
  await daemon.waitid(id);
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text.length, total);
  t.match((await daemon.get('/readyz')).body.checks, { output: 'ok' });
  t.equal(await daemon.stop(), 0);
});

t.test('if the disk accepts no more files, only a spawn that captures is refused', mayMount, async (t) => {
  const directory = temporaryDirectory(t);
  const state = join(directory, 'state');
  mkdirSync(state);
  const options = 'size=16m,nr_inodes=64,mode=0700';
  t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', state]).status, 0);
  t.teardown(() => spawnSync('umount', ['-l', state]));
  const daemon = await Daemon.start(t, { directory });
  await run(daemon, ['true']);
  const fill = (n = 0): void => {
    for (; ; n += 1) writeFileSync(join(state, `filler-${n}`), '');
  };
  t.throws(fill, { code: 'ENOSPC' });
  const spawn = { argv: ['true'], stdout: 'capture' };
  t.match(await daemon.post('/v1/handles', { spawn }), {
    status: 503,
    body: { errno: 'ENOSPC', detail: /captured/ },
    headers: { 'retry-after': '1' },
  });
  t.match(await daemon.post('/v1/handles', { spawn: { ...spawn, stdout: 'null' } }), { status: 201 });
  t.equal(await daemon.stop(), 0);
});

t.test('programs that inherit a stream get one that blocks for its reader', async (t) => {
  const wanted = linesTo(LINES);
  for (const nonblocking of [false, true]) {
    const { child, read } = await behindSlowReader(t, ['--main', '--', ...writing(LINES)], { nonblocking });
    t.same(await once(child, 'exit'), [0, null]);
    t.equal(difference(await read, wanted), null, `--main, ${nonblocking ? 'non' : ''}blocking for the daemon`);
  }
});
