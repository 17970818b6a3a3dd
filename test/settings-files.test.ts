import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, temporaryDirectory } from './support/harness.ts';

t.test('a FIFO for the policy, the tokens or a certificate is refused at once', async (t) => {
  const fifo = join(temporaryDirectory(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  chmodSync(fifo, 0o600);
  for (const args of [
    ['--policy', fifo],
    ['--tokens', fifo],
    ['--tls-cert', fifo, '--tls-key', fifo],
  ]) {
    const daemon = Daemon.begin(t, { args });
    t.equal(await daemon.exited, 1);
    t.match(daemon.log.join(''), `${fifo} is not a regular file`, args.join(' '));
  }
});

/** A user namespace has its own inotify limits, so that the machine's stay unchanged. */
const without = [
  '--user',
  '--map-root-user',
  'sh',
  '-c',
  'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"',
  'sh',
];
const skip = spawnSync('unshare', [...without, 'true']).status === 0 ? false : 'no user namespace can be created here';

t.test('without an inotify instance a policy is still read again, and the log names the sysctl', { skip }, (t) => {
  const directory = temporaryDirectory(t);
  const script = `
    import { writeFileSync } from 'node:fs';
    import { PolicyWatch } from ${JSON.stringify(join(import.meta.dirname, '../src/clients/policy-watch.ts'))};
    const file = ${JSON.stringify(join(directory, 'policy.json'))};
    writeFileSync(file, '{"clients":{"one":{}}}', { mode: 0o600 });
    const watch = new PolicyWatch(file, () => {});
    watch.read();
    console.log(watch.unwatched);
    watch.onRead(({ clients }) => {
      console.log([...clients.keys()].join());
      process.exit();
    });
    writeFileSync(file, '{"clients":{"two":{}}}');
    setTimeout(() => {}, 60_000);`;
  const { stdout, stderr } = spawnSync(
    'unshare',
    [...without, process.execPath, '--input-type=module-typescript', '-e', script],
    { encoding: 'utf8', env: { PATH: process.env.PATH ?? '', NODE_NO_WARNINGS: '1' } },
  );
  t.equal(
    stdout,
    `the daemon's user has no inotify instance left: raise the sysctl fs.inotify.max_user_instances\ntwo\n`,
    stderr,
  );
  t.end();
});
