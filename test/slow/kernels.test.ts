import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import t from 'tap';

const KERNEL = join(import.meta.dirname, '../support/kernel.sh');
const ALL = join(import.meta.dirname, 'kernels/all.ts');

// The kernels of Debian 12 and of its backports: one without pidfs, and one with pidfs but without PIDFD_GET_INFO.
const versions = ['6.1.0', '6.12'];

t.jobs = versions.length;
for (const version of versions) {
  const { status, stdout } = spawnSync(KERNEL, ['get', version], { encoding: 'utf8' });
  const skip = status !== 0 && `Linux ${version} cannot be booted here: ${stdout.trim()}`;
  // If the import of the first kernel is incomplete, the test must fail, not skip.
  const commands = [
    `export PATH=${dirname(process.execPath)}:$PATH KERNEL=${version.replace(/\.0$/, '.')} TAP_TIMEOUT=0`,
    `cd ${process.cwd()}`,
    `exec node --no-warnings ${ALL}`,
  ];
  t.spawn(KERNEL, ['run', version, commands.join('\n')], { skip, buffered: true }, `on Linux ${version}`);
}
