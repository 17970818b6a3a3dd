import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { treeOf, waitd } from './support/command.ts';
import { Daemon, temporaryDirectory } from './support/harness.ts';

t.test('--check reports each reason why a start would fail, and leaves nothing behind', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  const d = temporaryDirectory(t);
  writeFileSync(join(d, 'file'), '');
  const args = [
    ...['--state-dir', `${d}/file`, '--listen', `tcp:127.0.0.1:${port}`, '--listen', `unix:${d}/file`],
    ...['--listen', `unix:${d}/run/s`, '--policy', `${d}/none`, '--tokens', `${d}/none`, '--audit', `${d}/none/a`],
    ...['--tls-cert', `${d}/none`, '--tls-key', `${d}/none`, '--check', '--main', '--', '/no/such'],
  ];
  const { status, stdout, stderr } = waitd(['serve', ...args]);
  t.match({ status, stdout }, { status: 1, stdout: '' });
  const says = [
    /^waitd: .*none: no such file or directory/,
    /^waitd: .*none cannot be read/,
    /^waitd: --audit .* cannot be opened for writing/,
    /^waitd: \/no\/such cannot be started/,
    /^waitd: the state directory .*file is not a directory/,
    /^waitd: 127.0.0.1:\d+ is in use/,
    /^waitd: .*file exists and is not a socket/,
    /^$/,
  ];
  t.match(stderr.split('\n'), says);
  t.equal(stderr.split('\n').length, says.length);
  t.same(treeOf(d), ['file']);
});

t.test('--check beside a running daemon reports the conflict, and disturbs nothing', async (t) => {
  const daemon = await Daemon.start(t);
  const state = join(daemon.directory, 'state');
  const before = treeOf(daemon.directory);
  const endpoints = ['--listen', `unix:${daemon.socket}`, '--listen', `tcp:127.0.0.1:${daemon.port}`];
  const { status, stderr } = waitd(['serve', '--check', '--state-dir', state, ...endpoints]);
  t.equal(status, 1);
  t.match(stderr.split('\n'), [/uses the state directory/, /is serving/, /is in use/, ''], 'one sentence per reason');
  t.same(treeOf(daemon.directory), before);
  await daemon.upgrade();
  t.equal((await daemon.get('/livez')).status, 200, 'its own rehearsal accepts what the daemon holds');
  t.same(treeOf(daemon.directory), before);
  t.equal(await daemon.stop(), 0);
  t.match(waitd(['serve', '--check', '--state-dir', state, ...endpoints]), {
    status: 0,
    stdout: 'waitd: check passed\n',
  });
});

t.test('--check leaves the stale socket of a dead daemon, which a start replaces', async (t) => {
  const daemon = await Daemon.start(t);
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const before = treeOf(daemon.directory);
  const args = ['--listen', `unix:${daemon.socket}`, '--state-dir', join(daemon.directory, 'state')];
  t.match(waitd(['serve', '--check', ...args]), { status: 0, stderr: '' });
  t.same(treeOf(daemon.directory), before);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.equal(await heir.stop(), 0);
});
