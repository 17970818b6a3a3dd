import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { compileCache, Daemon, eventually, temporaryDirectory } from './support/harness.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');
/** Runs a start that is expected to fail. */
function refused(args: string[], env: Record<string, string> = {}): { code: number | null; text: string } {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    env: { PATH: process.env.PATH, NODE_NO_WARNINGS: '1', ...compileCache, ...env },
    encoding: 'utf8',
    timeout: 240_000,
  });
  return { code: status, text: stderr };
}

t.test('usage errors exit with 2 and name the nearest valid flag', async (t) => {
  const cases: [string[], RegExp][] = [
    [['serve', '--lisen', 'tcp:127.0.0.1:0'], /unknown option --lisen; did you mean --listen/],
    [['serve', '--state_dir=/x'], /--state_dir.*--state-dir/],
    [['serve', '--listen', 'nonsense'], /--listen.*unix:\/path, tcp:host:port or fd:name/],
    [['serve', '--listen', 'fd:a b'], /fd: followed by a name/],
    [['serve', '--listen', 'unix:relative'], /absolute path/],
    [['serve', '--listen', `unix:/${'x'.repeat(200)}`], /107 bytes/],
    [['serve', '--listen', 'tcp:127.0.0.1:99999'], /tcp:host:port/],
    [['serve', '--listen'], /needs a value/],
    [['serve', '--log-level', 'loud'], /--log-level/],
    [['serve', '--no-subreaper=yes'], /takes no value/],
    [['serve', '--socket-buffer', 'x'], /whole number/],
    [['serve', 'stray'], /unexpected argument stray/],
    [['run'], /unknown command run/],
  ];
  for (const [args, text] of cases) {
    const { code, text: said } = refused(args);
    t.equal(code, 2, args.join(' '));
    t.match(said, text);
    t.equal(said.trim().split('\n').length, 1, 'one line');
  }
  t.match(refused(['serve'], { WAITD_INSECURE_NO_AUTH: 'perhaps' }), { code: 2, text: /WAITD_INSECURE_NO_AUTH/ });
});

t.test('--help names every flag, --version the version', async (t) => {
  const run = (flag: string): string => spawnSync(process.execPath, [MAIN, flag], { encoding: 'utf8' }).stdout;
  for (const flag of ['--listen', '--state-dir', '--tokens', '--insecure-no-auth', '--no-subreaper', '--log-level'])
    t.match(run('--help'), flag);
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    version: string;
  };
  t.equal(run('--version').trim(), version);
});

t.test(
  'files are private: socket 0600, state 0700, token 0600; a tokens file with another mode is refused',
  async (t) => {
    const daemon = await Daemon.start(t);
    const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
    t.equal(mode(daemon.socket), '600');
    t.equal(mode(join(daemon.directory, 'state')), '700');
    t.equal(mode(join(daemon.directory, 'state', 'token')), '600');
    t.equal(mode(join(daemon.directory, 'state', 'journal.sqlite')), '600');
    const { token } = daemon;
    t.equal(await daemon.stop(), 0);
    t.notOk(existsSync(daemon.socket), 'the socket file is removed with it');
    const again = await Daemon.start(t, { directory: daemon.directory });
    t.equal(again.token, token, 'the token is kept');
    await again.stop();
    const tokens = join(daemon.directory, 'tokens');
    const args = [
      'serve',
      '--listen',
      `unix:${daemon.socket}`,
      '--state-dir',
      join(daemon.directory, 'state'),
      '--tokens',
      tokens,
    ];
    for (const [text, permissions, complaint] of [
      ['a token-0123456789-abc\n', 0o644, /mode 0644.*chmod 0600/],
      ['just-one-word\n', 0o600, /line 1: must be "client-name token"/],
      ['# fine\na short\n', 0o600, /line 2: the token is shorter/],
      ['a,b token-0123456789-abc\n', 0o600, /a client name has letters/],
      ['a sha256:0123456789\n', 0o600, /a hash is sha256: followed by 64/],
    ] as const) {
      writeFileSync(tokens, text);
      chmodSync(tokens, permissions);
      t.match(refused(args), { code: 1, text: complaint });
    }
  },
);

t.test(
  'a second daemon on the same state directory, socket or port is refused; a stale socket is taken over',
  async (t) => {
    const daemon = await Daemon.start(t);
    const other = temporaryDirectory(t);
    const state = join(daemon.directory, 'state');
    t.match(refused(['serve', '--listen', `unix:${other}/s`, '--state-dir', state]), {
      code: 1,
      text: /another waitd uses the state/,
    });
    t.match(refused(['serve', '--listen', `unix:${daemon.socket}`, '--state-dir', other]), {
      code: 1,
      text: /another daemon is serving/,
    });
    t.match(refused(['serve', '--listen', `tcp:127.0.0.1:${daemon.port}`, '--state-dir', other]), {
      code: 1,
      text: /is in use/,
    });
    writeFileSync(join(other, 'file'), '');
    t.match(refused(['serve', '--listen', `unix:${other}/file`, '--state-dir', other]), {
      code: 1,
      text: /not a socket/,
    });
    daemon.child.kill('SIGKILL');
    await daemon.exited;
    t.ok(existsSync(daemon.socket), 'stale');
    const heir = await Daemon.start(t, { directory: daemon.directory });
    t.equal((await heir.get('/livez')).status, 200);
    await heir.stop();
  },
);

t.test('processes of an earlier daemon are found again: live ones as foreign, ended ones as unknown', async (t) => {
  const daemon = await Daemon.start(t);
  const alive = await daemon.spawn(['sleep', '100'], { nonblocking: true, labels: { a: 'b' } });
  const lost = await daemon.spawn(['sleep', '100']);
  const known = await daemon.spawn(['sh', '-c', 'exit 5']);
  await daemon.post('/v1/poll', { handles: [known.id] });
  const { head } = (await daemon.get('/v1/node')).body;
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  process.kill(lost.process.pid, 'SIGKILL');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.match((await heir.get(`/v1/handles/${alive.id}`)).body, {
    state: 'running',
    relation: 'foreign',
    nonblocking: true,
    labels: { a: 'b' },
    process: alive.process,
  });
  const { state, outcome } = (await heir.get(`/v1/handles/${lost.id}`)).body;
  t.equal(state, 'exited');
  // Known only if the new daemon saw the zombie before init reaped it; null while init has not.
  t.ok(outcome === null || outcome.reason === 'unknown' || outcome.signal === 'SIGKILL', JSON.stringify(outcome));
  t.match(
    (await heir.waitid(known.id)).body,
    { outcome: { reason: 'exited', exitCode: 5 } },
    'its status can still be collected',
  );
  t.ok((await heir.get('/v1/node')).body.head >= head);
  const ended = heir.post('/v1/poll', { handles: [alive.id] });
  process.kill(alive.process.pid, 'SIGKILL');
  t.match((await ended).body.ready, [{ handle: alive.id, revents: ['POLLIN'] }]);
  t.equal(await heir.stop(), 0);
});

t.test('a daemon that is started with SIGCHLD ignored loses no status', async (t) => {
  const daemon = await Daemon.start(t, {
    prefix: [
      'python3',
      '-c',
      'import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])',
    ],
  });
  t.match((await daemon.waitid((await daemon.spawn(['sh', '-c', 'exit 9'])).id)).body, { outcome: { exitCode: 9 } });
  t.equal(await daemon.stop(), 0);
});

t.test('stray descriptors from the starting process reach no child', async (t) => {
  const daemon = await Daemon.start(t, { prefix: ['sh', '-c', 'exec 7</etc/hostname; exec "$0" "$@"'] });
  const file = join(daemon.directory, 'fds');
  await daemon.waitid((await daemon.spawn(['sh', '-c', 'ls /proc/$$/fd'], {}, { stdout: { file } })).id);
  t.same(
    readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .filter((fd) => Number(fd) < 10),
    ['0', '1', '2'],
  );
  t.equal(await daemon.stop(), 0);
});

t.test('--insecure-no-auth serves TCP as anonymous, and still refuses a wrong token', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--insecure-no-auth'] });
  const answer = await fetch(`http://127.0.0.1:${daemon.port}/v1/handles`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"spawn":{"argv":["true"]}}',
  });
  t.match(await answer.json(), { client: 'anonymous' });
  const wrong = await fetch(`http://127.0.0.1:${daemon.port}/v1/handles`, {
    headers: { authorization: 'Bearer wrong-0123456789' },
  });
  t.equal(wrong.status, 401);
  t.notOk(existsSync(join(daemon.directory, 'state', 'token')));
  t.equal(await daemon.stop(), 0);
});

t.test('settings can come from the environment, and a flag overrides them', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'run'));
  const env = {
    WAITD_LISTEN: `unix:${directory}/run/a.sock,unix:${directory}/run/b.sock`,
    WAITD_STATE_DIR: join(directory, 'state'),
  };
  const child = spawn(process.execPath, [MAIN, 'serve'], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  for await (const data of child.stdout) {
    text += data;
    if (text.includes('"ready"')) break;
  }
  t.ok(existsSync(join(directory, 'run/a.sock')) && existsSync(join(directory, 'run/b.sock')));
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGINT');
  t.equal(await exit, 0);
});

t.test('on a terminal the daemon prints how to call it', async (t) => {
  const directory = temporaryDirectory(t);
  const command = `${process.execPath} ${MAIN} serve --listen unix:${directory}/s --state-dir ${directory}/state`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  for await (const data of child.stdout) {
    text += data;
    if (text.includes('Ctrl-C')) break;
  }
  t.match(text, `curl --unix-socket ${directory}/s`);
  t.notMatch(text, '"level"');
  child.kill('SIGTERM');
});

t.test('a log that has no reader, or does not fit on its disk, does not stop the daemon', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sleep', '100']);
  daemon.child.stdout!.destroy();
  t.equal(await daemon.stop(), 0, 'it logs that it stops');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await heir.signal(id, 'SIGKILL');
  t.equal(await heir.stop(), 0);
  const directory = temporaryDirectory(t);
  const shell = ['sh', '-c', 'exec "$0" "$@" >/dev/full'];
  const args = [MAIN, 'serve', '--listen', `unix:${directory}/s`, '--state-dir', `${directory}/state`];
  const child = spawn(shell[0]!, [...shell.slice(1), process.execPath, ...args], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await eventually(() => existsSync(`${directory}/s`));
  const exit = new Promise((resolve) => child.once('exit', resolve));
  await eventually(async () => {
    const answer = spawnSync('curl', ['-sf', '--unix-socket', `${directory}/s`, 'http://x/livez']);
    return answer.status === 0;
  });
  child.kill('SIGTERM');
  t.equal(await exit, 0);
});

const skip = process.getuid!() === 0 ? false : 'only root can be another user';

t.test('the Unix socket refuses another user', { skip }, async (t) => {
  const daemon = await Daemon.start(t);
  chmodSync(daemon.directory, 0o755);
  chmodSync(daemon.socket, 0o666);
  const curl = ['curl', '-si', '--unix-socket', daemon.socket, 'http://localhost/v1/handles'];
  const { stdout } = spawnSync('setpriv', ['--reuid', '65534', '--clear-groups', ...curl], { encoding: 'utf8' });
  t.match(stdout, /^HTTP\/1.1 403[\s\S]*"errno":"EPERM"/);
  t.equal(await daemon.stop(), 0);
});

t.test('a socket path where another server listens is refused, and that server is left alone', async (t) => {
  const directory = temporaryDirectory(t);
  const server = createServer().listen(join(directory, 's'));
  t.teardown(() => server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const { code, text } = await new Promise<{ code: number | null; text: string }>((resolve) => {
    const child = spawn(process.execPath, [
      MAIN,
      'serve',
      '--listen',
      `unix:${directory}/s`,
      '--state-dir',
      `${directory}/state`,
    ]);
    let said = '';
    child.stderr.on('data', (data) => {
      said += data;
    });
    child.once('close', (exit) => resolve({ code: exit, text: said }));
  });
  t.match({ code, text }, { code: 1, text: /another daemon is serving/ });
});
