import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { oneSentence, treeOf, waitd } from './support/command.ts';
import { Daemon, temporaryDirectory } from './support/harness.ts';

t.test('a failed start prints the reason in one sentence, and leaves nothing behind', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  const d = temporaryDirectory(t);
  const listener = createServer().listen(join(d, 'live'));
  await once(listener, 'listening');
  t.teardown(() => listener.close());
  writeFileSync(join(d, 'file'), '');
  writeFileSync(join(d, 'open'), 'a sha256:0\n', { mode: 0o644 });
  symlinkSync('nowhere', join(d, 'link'));
  const state = ['--state-dir', `${d}/new/state`];
  const socket = ['--listen', `unix:${d}/run/s`];
  const cases: [string, string[], RegExp, number?][] = [
    ['a port in use', [...state, ...socket, '--listen', `tcp:127.0.0.1:${port}`], /127.0.0.1:\d+ is in use: stop/],
    [
      'an address of another machine',
      [...state, ...socket, '--listen', 'tcp:192.0.2.1:0'],
      /is not an address of this/,
    ],
    ['a live socket', [...state, '--listen', `unix:${d}/live`], /another daemon is serving .*live: stop it/],
    [
      'a file in the place of the socket',
      [...state, '--listen', `unix:${d}/file`],
      /is not a socket: give another --listen/,
    ],
    ['a file on the way to the socket', [...state, '--listen', `unix:${d}/file/s`], /cannot be created: .*ENOTDIR/],
    ['a state directory that is a file', ['--state-dir', `${d}/file`, ...socket], /is not a directory: remove/],
    ['a state directory with an overlong name', ['--state-dir', `${d}/${'x'.repeat(300)}`, ...socket], /ENAMETOOLONG/],
    ['no tokens file', [...state, ...socket, '--tokens', `${d}/none`], /none: no such file or directory/],
    ['a tokens file that others read', [...state, ...socket, '--tokens', `${d}/open`], /chmod 0600/],
    ['a directory as audit', [...state, ...socket, '--audit', d], /--audit .* cannot be opened for writing/],
    [
      'a missing main program',
      [...state, ...socket, '--audit', `${d}/a`, '--main', '--', '/no/such'],
      /cannot be started/,
      127,
    ],
    ['a main program in no known format', [...state, ...socket, '--main', '--', `${d}/text`], /cannot be started/, 126],
  ];
  writeFileSync(join(d, 'text'), 'nothing that a kernel executes', { mode: 0o755 });
  const before = treeOf(d);
  for (const [what, args, says, status = 1] of cases) {
    const ended = waitd(['serve', ...args]);
    t.match(ended, { status, stderr: oneSentence }, what);
    t.match(ended.stderr, says, what);
    t.same(treeOf(d), before, `${what}: nothing is left behind`);
  }
});

t.test('a failed start on the state of an earlier daemon leaves it unchanged', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  const { head } = (await daemon.get('/v1/node')).body;
  t.equal(await daemon.stop(), 0);
  const state = join(daemon.directory, 'state');
  const before = treeOf(state);
  const identity = readFileSync(join(state, 'node.json'), 'utf8');
  for (const args of [
    ['--listen', 'tcp:192.0.2.1:0'],
    ['--listen', `unix:${daemon.socket}`, '--main', '--', '/etc/passwd'],
  ])
    t.not(waitd(['serve', '--state-dir', state, ...args]).status, 0);
  t.same(treeOf(state), before);
  t.equal(readFileSync(join(state, 'node.json'), 'utf8'), identity, 'no seqs are reserved');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.equal((await heir.get('/v1/node')).body.head, head);
  t.equal(await heir.stop(), 0);
});

t.test('a stop removes only its own socket file, also after an upgrade', async (t) => {
  for (const upgrades of [0, 1]) {
    const daemon = await Daemon.start(t);
    if (upgrades > 0) await daemon.upgrade();
    rmSync(daemon.socket);
    const other = createServer().listen(daemon.socket);
    await once(other, 'listening');
    t.equal(await daemon.stop(), 0);
    t.ok(existsSync(daemon.socket), 'another daemon has created it since');
    other.close();
  }
});
