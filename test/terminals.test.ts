import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';
import { Screen } from './support/terminal.ts';

const daemon = await Daemon.start(t);
const root = process.getuid!() === 0;
const tty = { rows: 24, cols: 80 };

/** The shell edits no line with escape sequences. */
const PLAIN = { PS1: 'P> ', TERM: 'dumb' };

const CTRL_C = '\x03';
const CTRL_D = '\x04';
const CTRL_Z = '\x1a';

/** Counts the terminals that a daemon has open. */
const mastersOf = ({ pid }: Daemon): number =>
  readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === '/dev/ptmx';
    } catch {
      return false; // it was closed meanwhile
    }
  }).length;

const rssOf = ({ pid }: Daemon): number =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;

const typesOf = (events: { event: string }[]): string[] => events.map(({ event }) => event);

t.test('a program gets a terminal as its standard streams and its controlling terminal', async (t) => {
  const script = 'tty; stty size; echo $TERM; echo to the terminal > /dev/tty; echo error >&2; ls /proc/self/fd';
  const screen = await Screen.open(daemon, ['sh', '-c', script]);
  t.match(await screen.outcome(), { reason: 'exited', exitCode: 0 });
  t.match(
    await screen.text(),
    /^\/dev\/pts\/\d+\r\n24 80\r\nxterm-256color\r\nto the terminal\r\nerror\r\n0 {2}1 {2}2 {2}3\r\n$/,
  );
  const { body } = await daemon.get(`/v1/handles/${screen.id}/stderr`);
  t.match(body, { status: 404, errno: 'ENODATA' }, 'all of it is stdout');
});

t.test('it leads the session and the foreground group of the terminal', async (t) => {
  const screen = await Screen.open(daemon, ['sh', '-c', 'ps -o tty=,pid=,sid=,pgid=,tpgid= -p $$; tty']);
  const [name, pid, ...others] = (await screen.whole()).trim().split(/\s+/);
  t.strictSame(others, [pid, pid, pid, `/dev/${name}`]);
});

t.test('its own TERM counts, and its terminal is the only stream', async (t) => {
  const screen = await Screen.open(daemon, ['sh', '-c', 'echo $TERM'], { env: { TERM: 'vt100' } });
  t.equal(await screen.whole(), 'vt100\r\n');
  for (const stream of ['stdin', 'stdout', 'stderr']) {
    const { body } = await daemon.post('/v1/handles', { spawn: { argv: ['true'], tty, [stream]: 'null' } });
    t.match(body, { status: 400, errno: 'EINVAL', errors: [{ path: `/spawn/${stream}` }] });
  }
});

t.test('no other process has its terminal', async (t) => {
  const before = daemon.descriptors;
  const screen = await Screen.open(daemon, ['cat']);
  const { id } = await daemon.spawn(['ls', '/proc/self/fd'], {}, { stdout: 'capture' });
  await daemon.waitid(id);
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text, '0\n1\n2\n3\n');
  const other = await Screen.open(daemon, ['ls', '/proc/self/fd']);
  t.equal(await other.whole(), '0  1  2  3\r\n');
  await screen.type(CTRL_D);
  t.equal(await screen.whole(), '');
  await screen.outcome();
  await eventually(() => daemon.descriptors <= before, 'the descriptors of ended terminals are closed');
});

t.test('a shell has job control', async (t) => {
  const shell = await Screen.open(daemon, ['bash', '--norc', '-i'], { env: PLAIN });
  await shell.shows(/P> $/);
  t.notMatch(await shell.text(), /no job control|cannot set terminal/);
  await shell.type('sh -c "echo begun; exec sleep 60"\n');
  await shell.shows(/\r\nbegun\r\n/);
  await shell.type(CTRL_Z);
  await shell.shows(/\[1\]\+\s+Stopped/);
  await shell.type('bg\n');
  await shell.shows(/\[1\]\+ sh -c .* &\r\n/);
  await shell.type('fg; echo status $?\n');
  await shell.shows(/fg; echo status \$\?\r\n.*sh -c .*sleep 60"\r\n/);
  await shell.type(CTRL_C);
  await shell.type('echo status $?\n');
  await shell.shows(/status 130\r\n/);
  await shell.type('exit 9\n');
  t.match(await shell.outcome(), { reason: 'exited', exitCode: 9 });
});

t.test('a program learns a new size, and SIGWINCH tells it', async (t) => {
  const script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.02; done";
  const screen = await Screen.open(daemon, ['bash', '-c', script]);
  await screen.shows(/ready/);
  t.match(await screen.resize(50, 132), { status: 204, text: '' });
  t.match(await screen.outcome(), { reason: 'exited', exitCode: 3 });
  t.equal(await screen.whole(), 'ready\r\n50 132\r\n');
});

t.test('a size is refused without a terminal, and once it is closed', async (t) => {
  const { id } = await daemon.spawn(['true'], {}, { stdin: 'pipe' });
  t.match(await daemon.request('PUT', `/v1/handles/${id}/tty`, { body: tty }), {
    status: 422,
    body: { errno: 'ENOTTY', handle: id },
  });
  const screen = await Screen.open(daemon, ['true']);
  for (const [rows, cols] of [
    [0, 80],
    [24, 65536],
    [24.5, 80],
    [24, '80'],
    [24, undefined],
  ] as number[][])
    t.match(await screen.resize(rows!, cols!), { status: 400, body: { errno: 'EINVAL' } });
  await screen.whole();
  t.match(await screen.resize(24, 80), { status: 410, body: { errno: 'EPIPE' } });
  t.match(await screen.type('late'), { status: 410, body: { errno: 'EPIPE' } });
});

t.test('the end of input is the EOF character, also one that the program has chosen', async (t) => {
  const screen = await Screen.open(daemon, ['cat']);
  t.match(await screen.type('line\n', '?eof=true'), { status: 200, body: { accepted: 5 } });
  t.match(await screen.outcome(), { reason: 'exited', exitCode: 0 });
  t.equal(await screen.text(), 'line\r\nline\r\n');
  const other = await Screen.open(daemon, ['sh', '-c', 'stty eof ^G; echo ready; cat; echo over']);
  await other.shows(/ready/);
  await other.type(`${CTRL_D}\n`);
  t.same((await other.type('', '?eof=true')).body, { accepted: 0 });
  t.match(await other.outcome(), { reason: 'exited', exitCode: 0 });
  t.match(await other.text(), /over/);
});

t.test('a program that has disabled the EOF character gets none', async (t) => {
  const screen = await Screen.open(daemon, ['sh', '-c', 'stty eof undef; echo ready; head -c 3']);
  await screen.shows(/ready/);
  t.same((await screen.type('a', '?eof=true')).body, { accepted: 1, eof: false });
  await screen.type('b\n');
  t.match(await screen.outcome(), { reason: 'exited', exitCode: 0 });
  t.match(await screen.text(), /ab\r\nab\r\n$/);
});

t.test('a terminal that is full has no room for its EOF character either', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { tty: { rows: 24, cols: 80 } });
  for (const text of [`${'x'.repeat(4000)}\n`, 'y\n'])
    while ((await daemon.write(id, text, '?flags=MSG_DONTWAIT')).status === 200);
  t.match(await daemon.write(id, '', '?eof=true&flags=MSG_DONTWAIT'), { status: 409, body: { errno: 'EAGAIN' } });
  t.same((await daemon.write(id, '', '?eof=true&timeoutMs=1')).body, { accepted: 0, eof: false });
  t.same((await daemon.write(id, 'y', '?eof=true&timeoutMs=1')).body, { accepted: 0 });
  await daemon.signal(id, 'SIGKILL');
  t.match((await daemon.waitid(id)).body, { outcome: { signal: 'SIGKILL' } });
});

t.test('what is typed while the echo is off is not shown', async (t) => {
  const screen = await Screen.open(daemon, ['bash', '-c', 'read -rsp "Password: " p; echo; echo -n "$p" | wc -c']);
  await screen.shows(/Password: /);
  await screen.type('hunter2\n');
  t.equal(await screen.whole(), 'Password: \r\n7\r\n');
});

t.test('nothing is missing at the exit, however soon that comes', async (t) => {
  const script = 'seq -w 1 400; printf "the end"';
  const expected = `${Array.from({ length: 400 }, (_, i) => String(i + 1).padStart(3, '0')).join('\r\n')}\r\nthe end`;
  for (let round = 0; round < 30; round += 1)
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        const screen = await Screen.open(daemon, ['sh', '-c', script]);
        await screen.outcome();
        const text = await screen.text();
        if (text !== expected) t.equal(text, expected);
      }),
    );
  const { body } = await daemon.post(
    '/v1/handles?output=100',
    { spawn: { argv: ['sh', '-c', script], tty } },
    { headers: { prefer: 'wait=30' } },
  );
  t.match(body.output, { stdout: { text: /the end$/, size: expected.length }, complete: true });
});

t.test('an input that comes after the end of the program takes no output away', async (t) => {
  for (let round = 0; round < 50; round += 1) {
    const screen = await Screen.open(daemon, ['sh', '-c', 'echo all of it']);
    const writes = Array.from({ length: 5 }, () => screen.type('x'));
    await Promise.all([screen.outcome(), ...writes]);
    const text = (await screen.whole()).replaceAll('x', '');
    if (text !== 'all of it\r\n') t.equal(text, 'all of it\r\n');
  }
});

t.test('a program that floods its terminal waits, and the newest output is kept', async (t) => {
  const small = await Daemon.start(t, { args: ['--max-output', '1048576'] });
  const screen = await Screen.open(small, ['sh', '-c', 'stty raw; exec yes 0123456789abcdef']);
  const sizeOf = async (): Promise<number> =>
    (await small.get(`/v1/handles/${screen.id}?output=17`)).body.output.stdout.size;
  await eventually(async () => (await sizeOf()) > 16e6, 'the terminal is flooded');
  const before = rssOf(small);
  await eventually(async () => (await sizeOf()) > 64e6, 'it is flooded on');
  t.ok(rssOf(small) < before + 64e6, 'the daemon does not grow');
  t.match((await small.get('/livez')).status, 200);
  await small.signal(screen.id, 'SIGKILL');
  const kept = await screen.whole();
  t.ok(kept.length < 3 * 2 ** 20, `${kept.length} bytes are kept`);
  t.match(kept.slice(-170), /^[0-9a-f\n]+$/);
  await small.stop();
});

t.test('a program that closes its terminal is not hung up, and may open it again', async (t) => {
  const script = 'exec </dev/null >/dev/null 2>&1; sleep 0.2; echo again >/dev/tty; sleep 0.2; exit 5';
  const screen = await Screen.open(daemon, ['sh', '-c', script]);
  t.match(await screen.outcome(), { reason: 'exited', exitCode: 5 });
  t.equal(await screen.text(), 'again\r\n');
});

t.test('a background job that outlives its shell keeps the terminal', async (t) => {
  const script = 'exec 3<&0; (trap "" HUP; echo ready; read line <&3; echo the job: $line) & wait';
  const screen = await Screen.open(daemon, ['bash', '-c', script]);
  await screen.shows(/ready/);
  await daemon.signal(screen.id, 'SIGKILL');
  t.match(await screen.outcome(), { reason: 'killed' });
  t.match(await screen.resize(10, 20), { status: 204 });
  t.strictSame(await daemon.events(screen.id).then(typesOf), ['opened', 'exited']);
  await screen.type('late\n');
  t.match(await screen.whole(), /the job: late\r\n$/);
  await eventually(async () => typesOf(await daemon.events(screen.id)).includes('output'));
});

t.test('a closed handle hangs nothing up, and a flood goes on', async (t) => {
  const screen = await Screen.open(daemon, ['bash', '-c', 'head -c 3000000 /dev/zero; exec sleep 60']);
  t.equal((await daemon.request('DELETE', `/v1/handles/${screen.id}`)).status, 204);
  await eventually(() => readFileSync(`/proc/${screen.pid}/cmdline`, 'utf8') === 'sleep\x0060\0');
  process.kill(screen.pid);
});

t.test('the terminals are closed with their programs, a hundred at once', async (t) => {
  const before = daemon.descriptors;
  const screens = await Promise.all(
    Array.from({ length: 100 }, () => Screen.open(daemon, ['sh', '-c', 'read a; echo got $a'])),
  );
  t.equal(mastersOf(daemon), 100);
  await Promise.all(screens.map((screen, at) => screen.type(`${at}\n`)));
  for (const [at, screen] of screens.entries()) t.equal(await screen.whole(), `${at}\r\ngot ${at}\r\n`);
  await Promise.all(screens.map((screen) => screen.outcome()));
  await eventually(() => mastersOf(daemon) === 0);
  daemon.disconnect();
  await eventually(() => daemon.descriptors <= before, 'no descriptor is left open');
});

t.test('an interactive shell ends by terminate, and a program that handles SIGTERM ends as it wants', async (t) => {
  const shell = await Screen.open(daemon, ['bash', '--norc', '-i'], { env: PLAIN });
  await shell.shows(/P> $/);
  // bash checks for signals before it waits for a key, and misses one that comes in between.
  await eventually(() => stateOf(shell.pid) === 'S');
  t.match((await daemon.post(`/v1/handles/${shell.id}/terminate`, { graceMs: 60_000 })).body, {
    outcome: { reason: 'killed', signal: 'SIGHUP' },
  });
  const script = "trap 'sleep 0.1; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
  const program = await Screen.open(daemon, ['bash', '-c', script]);
  await program.shows(/ready/);
  t.match((await daemon.post(`/v1/handles/${program.id}/terminate`, { graceMs: 60_000 })).body, {
    outcome: { reason: 'exited', exitCode: 7 },
  });
});

t.test('a timeout ends an interactive shell too', async (t) => {
  const shell = await Screen.open(daemon, ['bash', '--norc', '-i'], { env: PLAIN });
  await shell.shows(/P> $/);
  await eventually(() => stateOf(shell.pid) === 'S');
  const timeout = { afterMs: 1, graceMs: 60_000 };
  t.equal((await daemon.request('PATCH', `/v1/handles/${shell.id}`, { body: { timeout } })).status, 200);
  t.match(await shell.outcome(), { reason: 'killed', signal: 'SIGHUP', timedOut: true });
});

t.test('a client has as many terminals as its quota allows, also with closed handles', async (t) => {
  const bob = as('bob');
  const limited = await startWithPolicy(t, {
    bob: { ...full, spawn: { programs: ['/usr/bin/'], users: ['*'] }, input: false, quotas: { terminals: 2 } },
  });
  const spawn = () => limited.post('/v1/handles', { spawn: { argv: ['cat'], tty } }, bob);
  const first = await Screen.open(limited, ['cat'], {}, bob);
  const second = await Screen.open(limited, ['cat'], {}, bob);
  const refused = { status: 429, body: { errno: 'EDQUOT', detail: /2 open terminals/ } };
  t.match(await spawn(), refused);
  t.match(await first.type(CTRL_D), { status: 403, body: { errno: 'EPERM' } }, 'the right input is needed to type');
  t.match(await first.resize(1, 1), { status: 403, body: { errno: 'EPERM' } }, 'and to resize');
  await limited.request('DELETE', `/v1/handles/${second.id}`, bob);
  t.match(await spawn(), refused);
  await limited.upgrade();
  t.match(await spawn(), refused, 'they count after an upgrade');
  process.kill(second.pid);
  await eventually(async () => (await spawn()).status === 201, 'the terminal of an ended program is free');
  t.match(await spawn(), refused);
  t.equal((await limited.post('/v1/handles', { spawn: { argv: ['true'] } }, bob)).status, 201);
  const both = await Promise.all([spawn(), spawn()]);
  t.match(both, [refused, refused]);
  await limited.stop();
});

t.test('over an upgrade input and output go on in the middle of a line', async (t) => {
  const upgraded = await Daemon.start(t);
  const shell = await Screen.open(upgraded, ['bash', '--norc', '-i'], { env: PLAIN });
  await shell.shows(/P> $/);
  const flood = await Screen.open(upgraded, ['sh', '-c', 'stty raw; seq 1 200000; echo over']);
  const closed = await Screen.open(upgraded, ['cat']);
  await upgraded.request('DELETE', `/v1/handles/${closed.id}`);
  for (let round = 0; round < 2; round += 1) {
    await shell.type('ec');
    await upgraded.upgrade();
    await shell.type(`ho again-${round}\n`);
    await shell.shows(new RegExp(`\\r\\nagain-${round}\\r\\n`));
  }
  t.match(await shell.resize(33, 44), { status: 204 });
  await shell.type('stty size\n');
  await shell.shows(/33 44/);
  const lines = (await flood.whole()).split('\n');
  t.equal(lines.length, 200_002);
  t.ok(lines.every((line, at) => line === String(at + 1) || at >= 200_000));
  t.ok(existsSync(`/proc/${closed.pid}`), 'a terminal without a handle stays open');
  await shell.type('exit\n');
  t.match(await shell.outcome(), { reason: 'exited', exitCode: 0 });
  process.kill(closed.pid);
  await eventually(() => mastersOf(upgraded) === 0);
  await upgraded.stop();
});

t.test('a daemon that dies hangs its terminals up', async (t) => {
  const dying = await Daemon.start(t);
  const screen = await Screen.open(dying, [
    'bash',
    '-c',
    'trap "echo hung up > $0; exit" HUP; echo ready; read',
    `${dying.directory}/hup`,
  ]);
  await screen.shows(/ready/);
  await dying.kill();
  await eventually(() => existsSync(`${dying.directory}/hup`));
  const next = await Daemon.start(t, { directory: dying.directory });
  const { body } = await next.get(`/v1/handles/${screen.id}`);
  t.match(body, { state: 'exited' });
  t.match((await next.get(`/v1/handles/${screen.id}/stdout`)).text, /ready/);
  await eventually(async () => typesOf(await next.events(screen.id)).includes('output'));
  await next.stop();
});

const stuckReader = join(temporaryDirectory(t), 'stuck-reader');
execFileSync('gcc', ['-O1', '-o', stuckReader, join(import.meta.dirname, 'native/stuck-reader.c')]);
const cannotFault = spawnSync(stuckReader, { input: '' }).status === 3 && 'this user has no userfaultfd(2)';

t.test(
  'a program that holds the lock of its terminal delays its own client alone',
  { skip: cannotFault },
  async (t) => {
    const own = await startWithPolicy(t, { a: full, b: full });
    const stuck = await Screen.open(own, [stuckReader, 'size'], {}, as('a'));
    const other = await Screen.open(own, ['cat'], {}, as('b'));
    await eventually(() => /handle_userfault/.test(readFileSync(`/proc/${stuck.pid}/stack`, 'utf8')));
    const blocked = stuck.resize(10, 10);
    t.match(await other.resize(20, 20), { status: 204 });
    await other.type('others go on\n', '?eof=true');
    t.match(await other.whole(), /others go on/);
    process.kill(stuck.pid, 'SIGKILL');
    t.ok([204, 410].includes((await blocked).status), 'it is over once the program has ended');
    t.equal(await own.stop(), 0);
  },
);

t.test('the terminal belongs to the user that the program runs as', root ? {} : { skip: 'needs root' }, async (t) => {
  const script = 'stat -c "%u %a" $(tty); echo path > $(tty); echo tty > /dev/tty; id -u';
  const screen = await Screen.open(daemon, ['sh', '-c', script], { user: 65534, group: 65534 });
  t.equal(await screen.whole(), '65534 620\r\npath\r\ntty\r\n65534\r\n');
});

t.test('a machine without a free terminal says so', root ? {} : { skip: 'needs root' }, async (t) => {
  const mount =
    'mount -t devpts -o newinstance,ptmxmode=666,max=1 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"';
  const full = await Daemon.start(t, { prefix: ['unshare', '--mount', 'sh', '-c', mount, 'sh'] });
  const screen = await Screen.open(full, ['cat']);
  const { status, headers, body } = await full.post('/v1/handles', { spawn: { argv: ['cat'], tty } });
  t.match(
    { status, headers, body },
    { status: 503, headers: { 'retry-after': '1' }, body: { errno: 'ENOSPC', detail: /kernel\.pty\.max/ } },
  );
  await screen.type(CTRL_D);
  await screen.whole();
  await eventually(async () => (await full.post('/v1/handles', { spawn: { argv: ['true'], tty } })).status === 201);
  await full.stop();
});

t.test('a machine without terminals says so', root ? {} : { skip: 'needs root' }, async (t) => {
  const mount = 'mount --bind /dev/null /dev/ptmx && exec "$@"';
  const bare = await Daemon.start(t, { prefix: ['unshare', '--mount', 'sh', '-c', mount, 'sh'] });
  const before = bare.descriptors;
  t.match(await bare.post('/v1/handles', { spawn: { argv: ['cat'], tty } }), {
    status: 501,
    body: { errno: 'EOPNOTSUPP', detail: /\/dev\/ptmx/ },
  });
  t.equal((await bare.post('/v1/handles', { spawn: { argv: ['true'] } })).status, 201);
  await eventually(() => bare.descriptors <= before + 2);
  await bare.stop();
});

t.teardown(() => daemon.stop());
