import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { defaultAddresses } from '../schemas/address.ts';
import { asNobody, closedToOthers, homeOf, isRoot, MAIN, oneSentence, treeOf, waitd } from './support/command.ts';
import { temporaryDirectory } from './support/harness.ts';

t.test('the default addresses for an unprivileged user', (t) => {
  const of = (env: Record<string, string>, uid = 1000, stateDir?: string): object =>
    defaultAddresses({ env, uid }, stateDir);
  const HOME = '/home/a';
  t.match(of({ HOME }, 0), { socket: '/run/waitd/waitd.sock', stateDir: '/var/lib/waitd' }, 'root’s');
  t.match(
    of({ HOME, XDG_RUNTIME_DIR: '/run/user/1000', XDG_STATE_HOME: '/s' }),
    { socket: '/run/user/1000/waitd/waitd.sock', stateDir: '/s/waitd' },
    'in a login session',
  );
  const stateDir = '/home/a/.local/state/waitd';
  t.match(of({ HOME }), { socket: `${stateDir}/waitd.sock`, stateDir }, 'without XDG_RUNTIME_DIR');
  t.match(of({ HOME, XDG_RUNTIME_DIR: 'run', XDG_STATE_HOME: '.' }), { stateDir }, 'relative XDG paths are ignored');
  t.match(of({ HOME }, 1000, '/x'), { socket: '/x/waitd.sock', stateDir: '/x' }, 'with --state-dir');
  t.match(of({ WAITD_STATE_DIR: '/x' }), { socket: '/x/waitd.sock' }, 'with WAITD_STATE_DIR');
  t.end();
});

/** A network namespace, in which the default port is free. */
const ownNetwork = [
  'unshare',
  ...(isRoot ? [] : ['--map-current-user', '--keep-caps']),
  ...['--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'],
];
const [unshare = '', ...unshareArgs] = ownNetwork;
const hasNetwork = spawnSync(unshare, [...unshareArgs, 'true']).status === 0;

t.test(
  'a user without XDG_RUNTIME_DIR can start the daemon without options',
  { skip: hasNetwork ? closedToOthers : 'needs a network namespace: the default port may be in use' },
  async (t) => {
    const home = homeOf(t);
    const env = { PATH: process.env.PATH, HOME: home, NODE_NO_WARNINGS: '1' };
    const prefix = [...ownNetwork, ...asNobody];
    t.match(waitd(['serve', '--check'], { env: { HOME: home }, prefix }), { status: 0, stderr: '' });
    t.same(treeOf(home), [], '--check leaves nothing behind');
    const child = spawn('env', ['-u', 'NODE_OPTIONS', ...prefix, process.execPath, MAIN, 'serve'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const exit = once(child, 'exit');
    for await (const line of createInterface({ input: child.stdout })) if (line.includes('"ready"')) break;
    const { socket } = defaultAddresses({ env, uid: 1000 });
    const client = connect(socket);
    await once(client, 'connect');
    client.destroy();
    child.kill('SIGTERM');
    t.same(await exit, [0, null]);
    t.notOk(existsSync(socket), 'its socket file is removed with it');
  },
);

t.test('help and version have every usual name; an unknown word gets the nearest suggestion', (t) => {
  const help = waitd(['--help']).stdout;
  t.match(help, /~\/\.local\/state\/waitd/, 'the default of the state directory');
  for (const args of [
    [],
    ['-h'],
    ['help'],
    ['help', 'serve'],
    ['serve', '-h'],
    ['serve', '--help'],
    ['token', '-h'],
    ['policy', '--help'],
  ])
    t.match(waitd(args), { status: 0, stdout: help, stderr: '' }, args.join(' '));
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'));
  for (const name of ['version', '--version', '-V'])
    t.match(waitd([name]), { status: 0, stdout: `${version}\n`, stderr: '' }, name);
  const cases: [string[], RegExp][] = [
    [['serv'], /unknown command serv; did you mean serve\? See waitd --help/],
    [['tokens', 'a'], /did you mean token\?/],
    [['--state-dir', '/x'], /an option must follow a command: waitd serve --state-dir/],
    [['serve', '-x'], /unknown option -x; .*See waitd --help/],
    [['serve', '--state-dir', 'relative'], /--state-dir.*must be an absolute path \(given: relative\)/],
  ];
  for (const [args, says] of cases) {
    t.match(waitd(args), { status: 2, stderr: oneSentence }, args.join(' '));
    t.match(waitd(args).stderr, says);
  }
  t.end();
});

t.test('an option of the main program is not parsed as an option of the daemon', async (t) => {
  const d = temporaryDirectory(t);
  const args = ['serve', '--state-dir', d, '--listen', `unix:${d}/s`, '--main', '--', 'test', '--help'];
  t.match(waitd(args), { status: 0, stdout: '' }, 'test(1) reads it as a word');
  t.end();
});

t.test('unwritable output is an error, and a reader that has closed the pipe is not', (t) => {
  const token = waitd(['token', 'a'], { prefix: ['sh', '-c', 'exec "$@" > /dev/full', 'sh'] });
  t.match(token, { status: 1, stderr: /^waitd: standard output cannot be written: .*no space/ });
  const pipe = waitd(['--help'], { prefix: ['sh', '-c', '"$@" | true', 'sh'] });
  t.equal(pipe.stderr, '');
  t.end();
});

t.test('the daemon can be profiled', (t) => {
  const d = temporaryDirectory(t);
  const args = ['serve', '--state-dir', `${d}/state`, '--listen', `unix:${d}/s`, '--main', '--', 'sleep', '0.2'];
  const profiled = ['env', `NODE_OPTIONS=--cpu-prof --cpu-prof-dir=${d}/profiles`];
  t.match(waitd(args, { prefix: profiled }), { status: 0, stderr: '' });
  t.equal(readdirSync(`${d}/profiles`).length, 1);
  t.end();
});

t.test(
  'the daemon starts in an unusual environment',
  { skip: isRoot ? closedToOthers : 'only root can become a user without a passwd entry' },
  async (t) => {
    const d = homeOf(t);
    const stray = ['setpriv', '--reuid', '4000000', '--regid', '4000000', '--clear-groups'];
    chmodSync(d, 0o777);
    const shell = (script: string): string[] => ['sh', '-c', `${script} exec "$@"`, 'sh'];
    const cases: [string, string[], Record<string, string>][] = [
      ['no HOME, no PATH, no entry in the password database', [...stray, 'env', '-i'], {}],
      ['no temporary directory', [], { TMPDIR: '/no/such' }],
      ['a closed stdin and stdout', shell('exec <&- >&-;'), {}],
      ['all streams closed', shell('exec <&- >&- 2>&-;'), {}],
      ['umask 077', shell('umask 077;'), {}],
      ['umask 0', shell('umask 0;'), {}],
      ['the C locale', [], { LANG: 'C', LC_ALL: 'C' }],
    ];
    for (const [index, [what, prefix, env]] of cases.entries()) {
      const state = join(d, `state${index}`);
      const args = ['serve', '--state-dir', state, '--listen', `unix:${d}/run${index}/s`, '--main', '--', '/bin/true'];
      t.match(waitd(args, { env, prefix }), { status: 0, stderr: '' }, what);
      for (const name of readdirSync(state)) {
        const { mode } = statSync(join(state, name));
        t.equal(mode & 0o077, 0, `${what}: ${name} is private`);
      }
    }
    const homeless = waitd(['serve', '--listen', `unix:${d}/s`], { prefix: [...stray, 'env', '-i'] });
    t.match(homeless, { status: 2, stderr: oneSentence });
    t.match(homeless.stderr, /uid 4000000 has no home directory.*give --state-dir DIR/);
  },
);
