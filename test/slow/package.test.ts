import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { call, until } from '../support/caller-on-socket.ts';
import { temporaryDirectory } from '../support/harness.ts';
import { installGlobally, pack } from '../support/package.ts';

const directory = temporaryDirectory(t);
const packed = pack(directory);
const prefix = join(directory, 'prefix');
installGlobally(packed, prefix);
const waitd = join(prefix, 'bin/waitd');
const PATH = [dirname(process.execPath), process.env.PATH].join(delimiter);

t.test('the package contains what it needs, and no build or test files', (t) => {
  const files = execFileSync('tar', ['tzf', packed], { encoding: 'utf8' }).trim().split('\n');
  const tops = new Set(files.map((file) => file.split('/')[1]!));
  t.same(
    tops,
    new Set(['CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md', 'deploy', 'dist', 'docs', 'package.json']),
  );
  const installed = join(prefix, 'lib/node_modules/waitd');
  t.notOk(existsSync(join(installed, 'node_modules/typescript')));
  t.notOk(existsSync(join(installed, 'node_modules/node')));
  t.ok(statSync(join(installed, 'deploy/install.sh')).mode & 0o100);
  for (const [, link] of readFileSync(join(installed, 'README.md'), 'utf8').matchAll(/\]\(((?!http)[^)#]+)/g))
    if (link !== 'CONTRIBUTING.md') t.ok(existsSync(join(installed, link!)), `${link} is in it`);
  t.end();
});

t.test('a global installation prints its version and its flags', (t) => {
  const run = (flag: string): string => spawnSync(waitd, [flag], { encoding: 'utf8', env: { PATH } }).stdout;
  t.equal(
    run('--version').trim(),
    JSON.parse(readFileSync(join(prefix, 'lib/node_modules/waitd/package.json'), 'utf8')).version,
  );
  t.match(run('--help'), /--listen/);
  t.end();
});

const older = ['/usr/bin/node', '/usr/bin/nodejs'].find(
  (path) =>
    existsSync(path) &&
    Number.parseInt(execFileSync(path, ['-p', 'process.versions.node'], { encoding: 'utf8' }), 10) < 24,
);
t.test(
  'an older Node.js gets a one-sentence error',
  older === undefined ? { skip: 'no older Node.js is installed' } : {},
  (t) => {
    const { status, stderr } = spawnSync('env', ['-u', 'NODE_OPTIONS', older!, waitd, 'serve'], { encoding: 'utf8' });
    t.equal(status, 1);
    t.match(stderr, /^waitd: this is Node\.js \d+\.\d+\.\d+, but waitd needs 24 or later\n$/);
    t.end();
  },
);

t.test(
  'npm install -g with an older Node.js fails with the reason',
  older === undefined ? { skip: 'no older Node.js is installed' } : {},
  (t) => {
    const elsewhere = join(directory, 'older');
    // The npm that runs this test may have a silent log level, which this one would inherit.
    const npm = ['npm', 'install', '-g', '--loglevel=error', '--no-audit', '--no-fund', '--prefix', elsewhere, packed];
    const { status, stderr } = spawnSync('env', ['-u', 'NODE_OPTIONS', `PATH=${dirname(older!)}:/bin`, ...npm], {
      encoding: 'utf8',
    });
    t.not(status, 0);
    t.match(stderr, /waitd: this is Node\.js \d+\.\d+\.\d+, and waitd takes 24 or newer: install that first/);
    t.notOk(existsSync(join(elsewhere, 'bin/waitd')));
    t.end();
  },
);

t.test('the installed package serves, and is upgraded to the version installed over it', async (t) => {
  const socket = join(directory, 's');
  const daemon = spawn(waitd, ['serve', '--listen', `unix:${socket}`, '--state-dir', join(directory, 'state')], {
    env: { PATH, HOME: directory, NODE_NO_WARNINGS: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(daemon, 'exit');
  t.teardown(() => {
    daemon.kill('SIGKILL');
    return exit;
  });
  const upgraded = new Promise<void>((resolve) => {
    createInterface({ input: daemon.stdout }).on('line', (line) => {
      if (line.includes('"upgraded":true')) resolve();
    });
  });
  await until(socket);
  const { body: handle } = await call(socket, 'POST', '/v1/handles', { spawn: { argv: ['sleep', '1000'] } });
  const { body: before } = await call(socket, 'GET', '/v1/node');
  t.match((await call(socket, 'GET', '/problems/EAGAIN')).text, /^## EAGAIN\n/, 'the reference is in the package');

  const next = join(directory, 'next');
  execFileSync('mkdir', [next]);
  execFileSync('tar', ['xzf', packed, '-C', next]);
  const manifest = join(next, 'package/package.json');
  writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(/"version": "[^"]*"/, '"version": "99.0.0"'));
  execFileSync('tar', ['czf', join(next, 'waitd-99.0.0.tgz'), '-C', next, 'package']);
  installGlobally(join(next, 'waitd-99.0.0.tgz'), prefix);
  daemon.kill('SIGHUP');
  await upgraded;
  t.match((await call(socket, 'GET', '/v1/node')).body, { version: '99.0.0', pid: before.pid, node: before.node });
  t.match((await call(socket, 'GET', `/v1/handles/${handle.id}`)).body, { state: 'running', relation: 'child' });
  await call(socket, 'POST', `/v1/handles/${handle.id}/terminate`, {});
  daemon.kill('SIGTERM');
  t.same(await exit, [0, null]);
});

t.test('the install script only copies files below DESTDIR, and removes them again', (t) => {
  const script = join(prefix, 'lib/node_modules/waitd/deploy/install.sh');
  const root = join(directory, 'root');
  const run = (...args: string[]) =>
    spawnSync('env', ['-u', 'NODE_OPTIONS', `DESTDIR=${root}`, `NODE=${process.execPath}`, script, ...args], {
      encoding: 'utf8',
    });
  for (let times = 0; times < 2; times += 1) t.equal(run().status, 0, 'a second run changes nothing');
  const service = readFileSync(join(root, 'etc/systemd/system/waitd.service'), 'utf8');
  t.match(service, /^ExecStart=\/.*node.* \/.*\/waitd\/dist\/src\/main\.js serve /m);
  t.match(service, /^Environment=NODE_OPTIONS=--disable-sigusr1$/m);
  t.equal(run('--uninstall').status, 0);
  t.same(execFileSync('find', [root, '-type', 'f'], { encoding: 'utf8' }), '');
  for (const [args, status] of [
    [['--wrong'], 2],
    [['--purge'], 1],
    [['--help'], 0],
  ] as const)
    t.equal(run(...args).status, status, args.join());
  t.end();
});
