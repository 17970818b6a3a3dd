import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { signalNumber } from '../schemas/signal-names.ts';
import {
  caughtBy,
  childrenOf,
  compileCache,
  eventually,
  Gate,
  Socket,
  stateOf,
  temporaryDirectory,
  withFaults,
} from './support/harness.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');

/** A daemon that is the init of one program. */
class Init {
  readonly directory: string;
  readonly socket: string;
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  readonly errors: string[] = [];
  readonly exited: Promise<[code: number | null, signal: string | null]>;
  #look = (): void => {};

  constructor(
    t: Test,
    command: string[],
    { env = {}, args = [] }: { env?: Record<string, string>; args?: string[] } = {},
  ) {
    this.directory = temporaryDirectory(t);
    this.socket = join(this.directory, 'waitd.sock');
    const options = ['--listen', `unix:${this.socket}`, '--state-dir', join(this.directory, 'state'), ...args];
    this.child = spawn(process.execPath, [MAIN, 'serve', '--main', ...options, '--', ...command], {
      env: { PATH: process.env.PATH ?? '', NODE_NO_WARNINGS: '1', ...compileCache, ...env },
      cwd: this.directory,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.exited = once(this.child, 'close') as Promise<[number | null, string | null]>;
    this.exited.then(() => this.#look());
    t.teardown(() => {
      if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
      return this.exited;
    });
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      this.lines.push(line);
      this.#look();
    });
    this.child.stderr!.on('data', (data) => this.errors.push(String(data)));
  }

  async line(wanted: string): Promise<void> {
    while (!this.lines.includes(wanted))
      await new Promise<void>((resolve) => {
        this.#look = resolve;
      });
  }
}

for (const [what, command, code] of [
  ['0', ['true'], 0],
  ['another exit code', ['sh', '-c', 'exit 7'], 7],
  ['an exit code that looks like a signal', ['sh', '-c', 'exit 137'], 137],
  ['128 plus the signal', ['sh', '-c', 'kill -KILL $$'], 137],
  ['the same for a core dump', ['sh', '-c', 'ulimit -c 0; kill -SEGV $$'], 139],
  ['127 if it does not exist', ['/no/such/program'], 127],
  ['127 if it is not in the PATH', ['no-such-program'], 127],
  ['126 if it cannot be executed', ['/etc/passwd'], 126],
] as const)
  t.test(`the daemon exits as its program does: ${what}`, async (t) => {
    const init = new Init(t, [...command]);
    t.same(await init.exited, [code, null]);
    t.same(init.lines, [], 'its stdout is that of the program');
    if (code === 127 || code === 126) t.match(init.errors.join(''), /^waitd: \S+ cannot be started: .+\n$/);
    else t.equal(init.errors.join(''), '', 'without problems its stderr is that of the program too');
  });

t.test('a program that cannot be started leaves no socket', async (t) => {
  const init = new Init(t, ['no-such-program']);
  await init.exited;
  t.equal(stateOf(init.child.pid!), null);
  t.equal(spawnSync('test', ['-e', init.socket]).status, 1);
});

t.test(
  'the program has the streams, directory and environment of its init, without the daemon’s own variables',
  async (t) => {
    const env = { WAITD_LOG_LEVEL: 'error', NOTIFY_SOCKET: '/nowhere', WATCHDOG_USEC: '1000000', KEPT: 'x y' };
    // The test runner's own variables are present, too.
    const script = 'pwd; cat; env | grep -E "^(PATH|HOME|LANG|KEPT|WAITD_.*|NOTIFY_.*|WATCHDOG_.*)="';
    const init = new Init(t, ['sh', '-c', script], { env });
    init.child.stdin!.end('from stdin\n');
    await init.exited;
    t.equal(init.lines[0], init.directory);
    t.equal(init.lines[1], 'from stdin');
    t.same(init.lines.slice(2).sort(), ['KEPT=x y', `PATH=${process.env.PATH}`]);
  },
);

for (const [also, env] of [
  ['', {}],
  [', and SIGUSR1 that Node.js itself shields', { NODE_OPTIONS: '--disable-sigusr1' }],
] as const)
  t.test(`signals are forwarded to the program, SIGHUP too${also}`, async (t) => {
    const standard = ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'ALRM', 'WINCH', 'CONT', 'PWR', 'URG', 'IO', 'TERM'];
    const resources = ['XCPU', 'XFSZ', 'VTALRM', 'PROF', 'STKFLT'];
    const realTime = ['RTMIN', 'RTMIN+1', 'RTMIN+15', 'RTMAX-1', 'RTMAX'];
    const signals = [...standard, ...resources, ...realTime];
    const script = `${signals.map((name) => `trap 'echo ${name}' ${name}`).join('; ')}; echo ready; while :; do sleep 0.02; done`;
    const init = new Init(t, ['bash', '-c', script], { env });
    await init.line('ready');
    for (const name of signals) {
      process.kill(init.child.pid!, signalNumber(`SIG${name}`)!);
      await init.line(name);
    }
    init.child.kill('SIGTSTP');
    const [program] = childrenOf(init.child.pid!);
    await eventually(() => stateOf(program!) === 'T');
    init.child.kill('SIGCONT');
    await eventually(() => stateOf(program!) !== 'T');
    process.kill(program!, 'SIGKILL');
    t.same(await init.exited, [137, null]);
  });

for (const signal of ['SIGHUP', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGPWR'] as const)
  t.test(`${signal} that arrives before the program has started reaches it`, async (t) => {
    const init = new Init(t, ['sh', '-c', 'ulimit -c 0; exec sleep 100']);
    // The first module installs the handler long before the daemon serves. The test runner's own modules install none
    // for this signal.
    await eventually(() => caughtBy(init.child.pid!).has('SIGWINCH'));
    init.child.kill(signal);
    t.same(await init.exited, [128 + constants.signals[signal], null]);
  });

t.test('a real-time signal that arrives before the program has started reaches it', async (t) => {
  const init = new Init(t, ['sh', '-c', 'exec sleep 100']);
  const number = signalNumber('SIGRTMIN+5')!;
  const caught = (): bigint =>
    BigInt(`0x${/^SigCgt:\t(.*)$/m.exec(readFileSync(`/proc/${init.child.pid}/status`, 'utf8'))?.[1] ?? 0}`);
  await eventually(() => ((caught() >> BigInt(number - 1)) & 1n) === 1n);
  process.kill(init.child.pid!, number);
  t.same(await init.exited, [128 + number, null]);
});

t.test('real-time signals are forwarded after an upgrade too', async (t) => {
  const init = new Init(
    t,
    ['bash', '-c', 'trap "exit 9" RTMIN+5; trap : USR2; echo up; while :; do sleep 0.02; done'],
    {
      env: withFaults(join(temporaryDirectory(t), 'none')),
      args: ['--log-level', 'debug'],
    },
  );
  await init.line('up');
  init.child.kill('SIGUSR2');
  await eventually(() => init.errors.join('').includes('"upgraded":true'));
  process.kill(init.child.pid!, signalNumber('SIGRTMIN+5')!);
  t.same(await init.exited, [9, null]);
});

t.test('the program has an ordinary handle, and its exit is sent before the daemon ends', async (t) => {
  const gate = new Gate(t);
  const init = new Init(t, ['sh', '-c', `echo up; read -r line < ${gate.path}; exit 3`]);
  await init.line('up');
  const socket = new Socket(new WebSocket(`ws+unix:${init.socket}:/v1/events?since=0`, ['waitd.v1']));
  const opened = await socket.first(({ event }) => event === 'opened');
  t.match(opened.process.argv, ['sh', '-c']);
  const curl = (path: string): string =>
    spawnSync('curl', ['-sS', '--unix-socket', init.socket, `http://x${path}`], { encoding: 'utf8' }).stdout;
  t.match(JSON.parse(curl('/v1/handles?label=main=true')).handles, [
    {
      id: opened.handle,
      relation: 'child',
      state: 'running',
      client: `uid:${process.getuid!()}`,
      labels: { main: 'true' },
    },
  ]);
  gate.open();
  t.match(await socket.first(({ event }) => event === 'exited'), { outcome: { reason: 'exited', exitCode: 3 } });
  t.equal((await socket.closed).code, 1001);
  t.same(await init.exited, [3, null]);
});

t.test('an internal error of the daemon does not end the program', async (t) => {
  const script = 'trap "exit 9" USR1; trap : USR2; echo up; while :; do sleep 0.02; done';
  const init = new Init(t, ['sh', '-c', script], {
    env: withFaults(join(temporaryDirectory(t), 'none')),
    args: ['--log-level', 'debug'],
  });
  await init.line('up');
  init.child.kill('SIGUSR2');
  await eventually(() => init.errors.join('').includes('"upgraded":true'));
  init.child.kill('SIGUSR1');
  t.same(await init.exited, [9, null]);
});

t.test('on a terminal the program is the foreground job', async (t) => {
  const directory = temporaryDirectory(t);
  const command = [
    process.execPath,
    MAIN,
    'serve',
    '--main',
    '--listen',
    `unix:${directory}/s`,
    '--state-dir',
    `${directory}/state`,
  ];
  const program = [
    ...command,
    '--',
    'bash',
    '-c',
    'ps -o tpgid=,pgid= -p $$ | { read -r a b; [ "$a" = "$b" ] && echo foreground; }; read -r line; echo "read $line"; kill -INT 0; sleep 5',
  ];
  const quoted = program.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const { status, stdout } = spawnSync('script', ['-qec', quoted, '/dev/null'], {
    input: 'words\n',
    encoding: 'utf8',
    timeout: 240_000,
  });
  t.match(stdout, /foreground/);
  t.match(stdout, /read words/);
  t.equal(status, 130, 'and Ctrl-C ends it');
});

t.test('processes spawned beside the program end with it on request', async (t) => {
  const gate = new Gate(t);
  const init = new Init(t, ['sh', '-c', `echo up; read -r line < ${gate.path}`], { args: ['--stop-children=5s'] });
  await init.line('up');
  const { stdout } = spawnSync(
    'curl',
    [
      '-sS',
      '--unix-socket',
      init.socket,
      'http://x/v1/handles',
      '-H',
      'content-type: application/json',
      '-d',
      '{"spawn":{"argv":["sleep","100"]}}',
    ],
    { encoding: 'utf8' },
  );
  const { pid } = JSON.parse(stdout).process;
  gate.open();
  t.same(await init.exited, [0, null]);
  t.not(stateOf(pid), 'S');
});

for (const [args, sentence] of [
  [['--main'], /--main needs a program after --/],
  [['--main', '--'], /--main needs a program after --/],
  [['--', 'true'], /unexpected argument true without --main/],
  [['--main', 'true'], /unexpected argument true/],
] as const)
  t.test(`serve ${args.join(' ')} is wrong usage`, async (t) => {
    const { status, stderr } = spawnSync(process.execPath, [MAIN, 'serve', ...args], { encoding: 'utf8' });
    t.equal(status, 2);
    t.match(stderr, sentence);
  });
