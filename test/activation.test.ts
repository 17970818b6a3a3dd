import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { compileCache, Gate, temporaryDirectory } from './support/harness.ts';

const ACTIVATE = join(import.meta.dirname, 'support/activate.py');
const MAIN = join(import.meta.dirname, '../src/main.ts');

interface Activated {
  child: ChildProcess;
  /** The text of its log. */
  lines: string[];
  errors: string[];
  exited: Promise<unknown[]>;
  begin(): void;
  until(fits: (line: string) => boolean): Promise<void>;
}

/**
 * Prepares a daemon that inherits listening sockets, and does not start it yet.
 * @param prefix the command that starts it
 */
async function activated(
  t: Test,
  directory: string,
  sockets: string[],
  args: string[],
  prefix: string[] = [],
): Promise<Activated> {
  const gate = new Gate(t);
  const command = [
    ...prefix,
    process.execPath,
    MAIN,
    'serve',
    '--state-dir',
    join(directory, 'state'),
    '--audit',
    'off',
    ...args,
  ];
  const child = spawn('python3', [ACTIVATE, gate.path, ...sockets, '--', ...command], {
    env: {
      PATH: process.env.PATH ?? '',
      HOME: directory,
      XDG_RUNTIME_DIR: directory,
      NODE_NO_WARNINGS: '1',
      ...compileCache,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = once(child, 'exit');
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
  });
  const lines: string[] = [];
  const errors: string[] = [];
  let look = (): void => {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    look();
  });
  child.stderr.on('data', (data) => errors.push(String(data)));
  const until = async (fits: (line: string) => boolean): Promise<void> => {
    while (!lines.some(fits)) {
      await Promise.race([
        new Promise<void>((resolve) => {
          look = resolve;
        }),
        exited.then(() => assert.fail(`it ended: ${errors.join('')}`)),
      ]);
    }
  };
  return { child, lines, errors, exited, begin: () => gate.open(), until };
}

function answerOf(where: { socketPath: string } | { port: number }, path = '/livez'): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', ...where, path }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode!));
    });
    asked.on('error', reject);
    asked.end();
  });
}

const isReady = (line: string): boolean => line.includes('"msg":"ready"');

t.test(
  'clients that wait at a passed socket are answered by a daemon that starts cold, and by its next image',
  async (t) => {
    const directory = temporaryDirectory(t);
    const path = join(directory, 'passed.sock');
    const daemon = await activated(t, directory, [`api=unix:${path}`, 'web=tcp'], []);
    await daemon.until((line) => line.startsWith('tcp:'));
    const port = Number(
      daemon.lines
        .find((line) => line.startsWith('tcp:'))!
        .split(':')
        .at(-1),
    );
    const waiting = Array.from({ length: 50 }, (_, index) =>
      answerOf(index % 2 === 0 ? { socketPath: path } : { port }),
    );
    daemon.begin();
    t.same(await Promise.all(waiting), Array(50).fill(200));
    const served = daemon.lines.filter((line) => line.includes('"listening"')).map((line) => JSON.parse(line).address);
    t.same(served, [`unix:${path}`, `tcp:127.0.0.1:${port}`], 'nothing else is served');
    t.equal(await answerOf({ socketPath: path }, '/v1/node'), 200, 'a Unix socket identifies the peer');
    t.equal(await answerOf({ port }, '/v1/node'), 401, 'TCP does not');

    daemon.child.kill('SIGHUP');
    const again = answerOf({ socketPath: path });
    await daemon.until((line) => line.includes('"upgraded":true'));
    t.equal(await again, 200);
    t.equal(await answerOf({ port }), 200);
    daemon.child.kill('SIGTERM');
    t.same(await daemon.exited, [0, null]);
    t.ok(existsSync(path), 'the socket is the service manager’s');
  },
);

t.test('a passed socket serves the address that it is bound to, or the listen option that names it', async (t) => {
  const directory = temporaryDirectory(t);
  const [byAddress, byName] = [join(directory, 'a.sock'), join(directory, 'b.sock')];
  const own = join(directory, 'own.sock');
  const listen = [`unix:${byAddress}`, 'fd:named', `unix:${own}`].flatMap((address) => ['--listen', address]);
  const daemon = await activated(t, directory, [`x=unix:${byAddress}`, `named=unix:${byName}`], listen);
  daemon.begin();
  await daemon.until(isReady);
  for (const path of [byAddress, byName, own]) t.equal(await answerOf({ socketPath: path }), 200);
  const inode = (path: string): string =>
    readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .filter((line) => line.endsWith(path))
      .join();
  t.equal(
    inode(byAddress)
      .split(',')
      .filter((line) => line.includes('00010000')).length,
    1,
    'it was not bound again',
  );
  daemon.child.kill('SIGTERM');
  await daemon.exited;
  t.same(
    readdirSync(directory).filter((name) => name.endsWith('.sock')),
    ['a.sock', 'b.sock'],
    'its own socket file is removed',
  );
});

for (const [what, sockets, args, sentence] of [
  [
    'an unused passed socket',
    ['x=tcp'],
    ['--listen', 'tcp:127.0.0.1:0'],
    /no --listen uses the passed socket fd:x, tcp:127\.0\.0\.1:\d+: add --listen fd:x/,
  ],
  [
    'a name that was not passed',
    ['x=tcp'],
    ['--listen', 'fd:x', '--listen', 'fd:y'],
    /--listen fd:y: the service manager did not pass a socket of this name/,
  ],
  [
    'a socket that is named twice',
    ['x=tcp'],
    ['--listen', 'fd:x', '--listen', 'fd:x'],
    /^waitd: --listen fd:x and --listen fd:x are the same passed socket: give one of them\n$/,
  ],
  [
    'a socket that is given by name and by path',
    ['x=unix:PATH'],
    ['--listen', 'unix:PATH', '--listen', 'fd:x'],
    /^waitd: --listen unix:\/.*\/s and --listen fd:x are the same passed socket: give one of them\n$/,
  ],
  ['a datagram socket', ['x=udp'], [], /descriptor x .* is not a listening stream socket/],
  ['a file', ['x=file'], [], /descriptor x .* is not a listening stream socket/],
] as const)
  t.test(`${what} is refused in one sentence`, async (t) => {
    const directory = temporaryDirectory(t);
    const placed = (words: readonly string[]): string[] =>
      words.map((word) => word.replace('PATH', join(directory, 's')));
    const daemon = await activated(t, directory, placed(sockets), placed(args));
    daemon.begin();
    t.same(await daemon.exited, [1, null]);
    t.match(daemon.errors.join(''), sentence);
    t.equal(daemon.errors.join('').trim().split('\n').length, 1);
  });

for (const [count, sentence] of [
  ['abc', /^waitd: LISTEN_FDS is "abc", which is not a valid number of descriptors\n$/],
  ['-1', /^waitd: LISTEN_FDS is "-1", /],
  ['1000000000', /^waitd: LISTEN_FDS is "1000000000", /],
  ['', /^waitd: LISTEN_FDS is "", /],
  ['2', /^waitd: /],
  ['1000', /^waitd: LISTEN_FDS is 1000, but descriptor \d+ is not open\n$/],
] as const)
  t.test(`LISTEN_FDS=${count} without such descriptors is refused in one sentence`, async (t) => {
    const daemon = await activated(t, temporaryDirectory(t), ['x=tcp'], [], ['env', `LISTEN_FDS=${count}`]);
    daemon.begin();
    t.same(await daemon.exited, [1, null]);
    t.match(daemon.errors.join(''), sentence);
    t.equal(daemon.errors.join('').trim().split('\n').length, 1);
  });

t.test('LISTEN_FDS that is meant for another process, or absent, is ignored', async (t) => {
  for (const prefix of [
    ['env', 'LISTEN_PID=1', 'LISTEN_FDS=abc'],
    ['env', '-u', 'LISTEN_FDS'],
    ['env', 'LISTEN_FDS=0'],
  ]) {
    const directory = temporaryDirectory(t);
    const path = join(directory, 'own.sock');
    const daemon = await activated(t, directory, [], ['--listen', `unix:${path}`], prefix);
    daemon.begin();
    await daemon.until(isReady);
    t.equal(await answerOf({ socketPath: path }), 200);
    daemon.child.kill('SIGTERM');
    t.same(await daemon.exited, [0, null]);
  }
});
