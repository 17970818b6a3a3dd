import { type ChildProcess, execFileSync, spawn as spawnHere } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { childrenOf, Daemon, eventually, type Response, stateOf, temporaryDirectory } from './support/harness.ts';

const root = process.getuid!() === 0;
const asRoot = { skip: !root && 'only root starts programs as another user' };
const ENDED = { prefer: 'wait=60' };

/** Compiles a program of one file. */
function compile(t: Test, name: string, source: string): string {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  writeFileSync(join(directory, 'source.c'), source);
  execFileSync('gcc', ['-O1', '-o', join(directory, name), join(directory, 'source.c')]);
  return join(directory, name);
}

/** Returns a program's output, once it has ended. */
async function outputOf(daemon: Daemon, argv: string[], more: object = {}): Promise<Response> {
  const spawn = { argv, stdout: 'capture', ...more };
  const answer = await daemon.post('/v1/handles', { spawn }, { headers: ENDED });
  if (answer.status !== 201) return answer;
  return { ...(await daemon.get(`/v1/handles/${answer.body.id}/stdout`)), body: answer.body };
}

/** A process with a write lease on files: an execution of one blocks until the lease is released (fcntl(2)). */
class LeaseHolder {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async take(t: Test, paths: readonly string[]): Promise<LeaseHolder> {
    const script = `
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
for fd in held: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()`;
    const child = spawnHere('python3', ['-c', script, ...paths], { stdio: ['pipe', 'pipe', 'inherit'] });
    const holder = new LeaseHolder(child);
    t.teardown(() => child.kill('SIGKILL'));
    await new Promise((resolve) => createInterface({ input: child.stdout! }).once('line', resolve));
    return holder;
  }

  /** Ends the process, and the kernel releases its leases. */
  async letGo(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#child.once('exit', () => resolve());
    this.#child.kill('SIGKILL');
    await promise;
  }
}

t.test('a program with a parent-death signal survives an upgrade, because its parent lives', async (t) => {
  const program = compile(
    t,
    'mourner',
    `#include <signal.h>
     #include <sys/prctl.h>
     #include <unistd.h>
     int main(void) { prctl(PR_SET_PDEATHSIG, SIGKILL); write(1, "asked\\n", 6); for (;;) pause(); }`,
  );
  const daemon = await Daemon.start(t);
  const mourners = await Promise.all(
    Array.from({ length: 20 }, () => daemon.spawn([program], {}, { stdout: 'capture' })),
  );
  for (const { id } of mourners)
    await eventually(async () => (await daemon.get(`/v1/handles/${id}/stdout`)).text === 'asked\n');
  await daemon.upgrade();
  await daemon.upgrade();
  for (const { id } of mourners) {
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running', relation: 'child' });
    await daemon.signal(id, 'SIGKILL');
  }
  await daemon.post('/v1/poll', { handles: mourners.map(({ id }) => id), until: 'all' });
});

t.test('a slow exec delays only its own request', async (t) => {
  const daemon = await Daemon.start(t);
  const directory = temporaryDirectory(t);
  const programs = Array.from({ length: 20 }, (_, n) => join(directory, `program-${n}`));
  for (const program of programs) copyFileSync('/bin/true', program);
  const holder = await LeaseHolder.take(
    t,
    programs.map((path) => realpathSync(path)),
  );
  let answered = 0;
  const slow = programs.map((program) =>
    daemon.post('/v1/handles', { spawn: { argv: [program] } }, { headers: ENDED }).then((answer) => {
      answered += 1;
      return answer;
    }),
  );
  const { text } = await outputOf(daemon, ['echo', 'quick']);
  t.equal(text, 'quick\n', 'other processes start, end, and are read');
  const orphans = await daemon.spawn(['sh', '-c', '(sleep 0.1 &) ; exit 0']);
  await daemon.post('/v1/poll', { handles: [orphans.id] });
  await eventually(() => daemon.zombies.length === 0);
  t.equal((await daemon.get('/livez')).status, 200);
  t.equal(answered, 0);
  await holder.letGo();
  for (const answer of await Promise.all(slow)) t.match(answer, { status: 201, body: { outcome: { exitCode: 0 } } });
});

t.test('an upgrade and a stop do not wait for an exec', async (t) => {
  for (const way of ['upgrade', 'stop'] as const) {
    const daemon = await Daemon.start(t);
    const program = join(temporaryDirectory(t), 'program');
    copyFileSync('/bin/true', program);
    const holder = await LeaseHolder.take(t, [realpathSync(program)]);
    const slow = daemon.post('/v1/handles', { spawn: { argv: [program] } });
    const other = await daemon.spawn(['sleep', '1000']);
    await daemon[way]();
    t.match(await slow, { status: 503 }, way);
    if (way === 'upgrade') {
      t.match((await daemon.get(`/v1/handles/${other.id}`)).body, { state: 'running', relation: 'child' });
      t.equal((await daemon.get('/v1/handles')).body.handles.length, 1, 'the abandoned spawn has no handle');
    }
    process.kill(other.process.pid, 'SIGKILL');
    await holder.letGo();
  }
});

t.test('a child that is stopped before its exec delays no other request', asRoot, async (t) => {
  const daemon = await Daemon.start(t);
  const program = join(temporaryDirectory(t), 'program');
  copyFileSync('/bin/true', program);
  chmodSync(join(program, '..'), 0o755);
  const holder = await LeaseHolder.take(t, [realpathSync(program)]);
  const slow = daemon.post('/v1/handles', { spawn: { argv: [program], user: 'nobody' } });
  // It is blocked in its exec, as the user nobody.
  const childOf = (pid: number): number[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  await eventually(() =>
    childOf(daemon.pid).some((pid) => /^Uid:\t65534/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))),
  );
  for (const pid of childOf(daemon.pid))
    if (/^Uid:\t65534/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) process.kill(pid, 'SIGSTOP');
  await daemon.upgrade();
  t.match(await slow, { status: 503 });
  t.equal((await outputOf(daemon, ['echo', 'on'])).text, 'on\n');
  await holder.letGo();
  await eventually(() => daemon.zombies.length === 0);
});

t.test('a FIFO is refused as a program, with any options', async (t) => {
  const daemon = await Daemon.start(t);
  const fifo = join(temporaryDirectory(t), 'fifo');
  execFileSync('mkfifo', ['-m', '755', fifo]);
  for (const more of [{}, { umask: '022' }, { limits: { core: 0 } }, { noNewPrivileges: true }])
    t.match(await daemon.post('/v1/handles', { spawn: { argv: [fifo], ...more } }), {
      status: 403,
      body: { errno: 'EACCES', syscall: 'posix_spawn' },
    });
});

t.test('resource limits apply to the program alone, not to its start', async (t) => {
  const daemon = await Daemon.start(t);
  for (const limits of [{ nofile: 8 }, { nofile: 4 }, { stack: 65536 * 4 }, { fsize: 1_000_000 }, { core: 0 }]) {
    const { text, body } = await outputOf(daemon, ['cat', '/proc/self/limits'], { limits });
    t.match(body, { outcome: { reason: 'exited', exitCode: 0 } }, JSON.stringify(limits));
    if ('nofile' in limits) t.match(text, new RegExp(`^Max open files +${limits.nofile} +${limits.nofile} `, 'm'));
  }
  const starved = await outputOf(daemon, ['true'], { limits: { as: 4096 } });
  t.match(
    starved.body,
    { outcome: { reason: 'killed' } },
    'too little for the program itself, as under a shell’s ulimit',
  );
});

t.test('arguments and variables have the limits of execve(2)', async (t) => {
  const daemon = await Daemon.start(t);
  const ways = [{}, { umask: '022' }, ...(root ? [{ user: 'nobody' }] : [])];
  for (const way of ways) {
    const large = { big: 'x'.repeat(200_000) };
    t.match(
      await daemon.post('/v1/handles', { spawn: { argv: ['true'], env: large, ...way } }),
      { status: 413, body: { errno: 'E2BIG' } },
      'one string may have 128 KiB',
    );
    t.match(
      await daemon.post('/v1/handles', { spawn: { argv: ['true', ...new Array(650_000).fill('x')], ...way } }),
      { status: 413, body: { errno: 'E2BIG' } },
      'each pointer takes eight bytes',
    );
    const env = {
      OPTIND: '7',
      UID: '8',
      PPID: '9',
      PWD: '/nowhere',
      OLDPWD: 'x',
      SHLVL: '5',
      _: 'underscore',
      IFS: ':',
      'with.dot': '1',
      'with space': '2',
      é: '3',
      '1st': '4',
      NEWLINES: '\n'.repeat(100_000),
    };
    const { text } = await outputOf(daemon, ['env', '-0'], { env, ...way });
    const found = Object.fromEntries(
      text
        .split('\0')
        .filter(Boolean)
        .map((each) => each.split(/=(.*)/s).slice(0, 2)),
    );
    for (const [name, value] of Object.entries(env)) t.equal(found[name], value, name);
  }
});

t.test('a program without a slash is looked up as by execvp(3)', async (t) => {
  const daemon = await Daemon.start(t);
  const directory = temporaryDirectory(t);
  const at = (...names: string[]): string => join(directory, ...names);
  for (const name of ['forbidden', 'folder', 'good', 'odd']) mkdirSync(at(name));
  writeFileSync(at('forbidden', 'tool'), '#!/bin/sh\n', { mode: 0o644 });
  mkdirSync(at('folder', 'tool'));
  writeFileSync(at('good', 'tool'), '#!/bin/sh\necho found\n', { mode: 0o755 });
  writeFileSync(at('odd', 'tool'), 'no format', { mode: 0o755 });
  const PATH = (...names: string[]): object => ({ env: { PATH: names.map((name) => at(name)).join(':') } });
  t.equal((await outputOf(daemon, ['tool'], PATH('missing', 'folder', 'good'))).text, 'found\n');
  t.equal((await outputOf(daemon, ['tool'], PATH('forbidden', 'good'))).text, 'found\n');
  for (const [path, status, errno] of [
    [PATH('missing'), 422, 'ENOENT'],
    [PATH('missing', 'forbidden'), 403, 'EACCES'],
    [PATH('odd', 'good'), 422, 'ENOEXEC'],
    [{ env: { PATH: '/x:'.repeat(2000) } }, 400, 'EINVAL'],
  ] as const)
    t.match(await daemon.post('/v1/handles', { spawn: { argv: ['tool'], ...path } }), { status, body: { errno } });
});

t.test('stdin data is on no disk, and can be opened again', async (t) => {
  const daemon = await Daemon.start(t);
  const ways = [{}, ...(root ? [{ user: 'nobody' }] : [])];
  for (const way of ways) {
    const handle = await daemon.spawn(['sleep', '1000'], {}, { stdin: { text: 'secret' }, ...way });
    t.match(readlinkSync(`/proc/${handle.process.pid}/fd/0`), /^\/memfd:/);
    await daemon.signal(handle.id, 'SIGKILL');
    const twice = await outputOf(daemon, ['sh', '-c', 'cat; cat < /dev/stdin'], { stdin: { text: 'again\n' }, ...way });
    t.equal(twice.text, 'again\nagain\n');
  }
});

t.test('a program starts in the permitted working directory, however fast its path is exchanged', asRoot, async (t) => {
  const directory = temporaryDirectory(t);
  const allowed = join(directory, 'allowed');
  const outside = join(directory, 'outside');
  for (const path of [allowed, outside, join(allowed, 'work')]) mkdirSync(path);
  execFileSync('ln', ['-s', outside, join(allowed, 'link')]);
  const swapper = compile(
    t,
    'swapper',
    `#define _GNU_SOURCE
     #include <fcntl.h>
     #include <stdio.h>
     int main(int argc, char **argv) {
       for (int n = 0; n < 20000000; n++) renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE);
     }`,
  );
  const token = 'token-0123456789abcdef';
  const rule = { programs: ['/bin/pwd'], directories: [allowed] };
  const policy = join(directory, 'policy');
  writeFileSync(policy, JSON.stringify({ clients: { a: { tokens: [`sha256:${hashOf(token)}`], spawn: rule } } }));
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  const swapping = spawnHere(swapper, [join(allowed, 'work'), join(allowed, 'link')]);
  t.teardown(() => swapping.kill('SIGKILL'));
  const headers = { authorization: `Bearer ${token}`, ...ENDED };
  const places = new Set<string>();
  let refused = 0;
  for (let round = 0; round < 30; round += 1) {
    const spawn = { argv: ['pwd', '-P'], cwd: join(allowed, 'work'), stdout: 'capture' };
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => daemon.post('/v1/handles', { spawn }, { headers })),
    );
    for (const { status, body } of answers)
      if (status === 201) places.add((await daemon.get(`/v1/handles/${body.id}/stdout`, { headers })).text.trim());
      else {
        t.equal(status, 403);
        refused += 1;
      }
  }
  t.notOk(places.has(realpathSync(outside)));
  t.ok(places.size > 0 && refused > 0, 'both cases occurred');
});

t.test('reported memory is that of the program, not of the daemon', async (t) => {
  const daemon = await Daemon.start(t);
  const { body } = await outputOf(daemon, ['true']);
  t.ok(body.rusage.maxRssKiB < 16_384, `${body.rusage.maxRssKiB} KiB`);
});

t.test('a program inherits nothing of the daemon: signals, mask, descriptors, session', async (t) => {
  const daemon = await Daemon.start(t);
  const { text, body } = await outputOf(daemon, ['cat', '/proc/self/status', '/proc/self/stat']);
  for (const name of ['SigBlk', 'SigIgn', 'SigCgt', 'SigPnd', 'ShdPnd']) t.match(text, `${name}:\t0000000000000000`);
  const { pid } = body.process;
  t.match(text, new RegExp(`^${pid} \\(cat\\) R ${daemon.pid} ${pid} ${pid} 0 -1 `, 'm'));
  t.equal((await outputOf(daemon, ['ls', '-1', '/proc/self/fd'])).text, '0\n1\n2\n3\n');
});

/** Returns the pid of a daemon's fork server. */
const forkServerOf = (daemon: Daemon): number | undefined =>
  childrenOf(daemon.pid).find(
    (pid) => stateOf(pid) !== 'Z' && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'waitd-fork\n',
  );

t.test('a fork server that is stopped is replaced', async (t) => {
  const daemon = await Daemon.start(t);
  let stopped: number | undefined;
  await eventually(async () => {
    t.equal((await outputOf(daemon, ['echo', 'x'])).text, 'x\n');
    stopped = forkServerOf(daemon);
    return stopped !== undefined;
  });
  process.kill(stopped!, 'SIGSTOP');
  t.equal((await outputOf(daemon, ['echo', 'on'])).text, 'on\n');
  t.not(forkServerOf(daemon), stopped);
});

t.test('a fork server that is killed during a spawn is replaced', async (t) => {
  const daemon = await Daemon.start(t);
  const server = (): number | undefined => forkServerOf(daemon);
  for (let round = 0; round < 20; round += 1) {
    const spawning = Array.from({ length: 10 }, () => outputOf(daemon, ['echo', 'x']));
    await eventually(() => server() !== undefined);
    process.kill(server()!, 'SIGKILL');
    for (const { status, text } of await Promise.all(spawning)) {
      if (status === 200) t.equal(text, 'x\n');
      else t.equal(status, 503);
    }
    t.equal((await outputOf(daemon, ['echo', 'on'])).text, 'on\n');
  }
  await eventually(() => daemon.zombies.length === 0);
});
