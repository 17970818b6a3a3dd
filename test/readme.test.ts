import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, temporaryDirectory } from './support/harness.ts';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');

t.test('the walk in the README does what the README says', async (t) => {
  const daemon = await Daemon.start(t);
  const [, walk = ''] = /## A walk\n\n```sh\n([\s\S]*?)```/.exec(readme) ?? [];
  const script = walk.replace('S=/run/waitd/waitd.sock', `S=${daemon.socket}`);
  t.not(script, walk);
  const { stdout, status } = spawnSync('bash', ['-euo', 'pipefail', '-c', script], {
    cwd: temporaryDirectory(t),
    encoding: 'utf8',
  });
  t.equal(status, 0);
  const printed = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(printed, [
    { nonblocking: true, state: 'running' },
    { errno: 'EAGAIN', retry: { afterMs: 250 } },
    { siginfo: null },
    { ready: [{ outcome: { reason: 'exited', exitCode: 7 } }] },
    { outcome: { reason: 'exited', exitCode: 7 } },
    { errno: 'ECHILD' },
    { events: [{ event: 'opened' }, { event: 'exited' }], gap: null },
  ]);
  t.equal(await daemon.stop(), 0);
});

t.test('every flag that the README names is one', async (t) => {
  const { options } = await import('../src/config/options.ts');
  const curls = new Set(['unix-socket', 'cacert', 'cert', 'key']);
  const flags = new Set<string>(['help', ...options.map(({ flag }) => flag)]);
  for (const [, flag] of readme.matchAll(/`?--([a-z][a-z-]+)/g)) if (!curls.has(flag!)) t.ok(flags.has(flag!), flag!);
});
