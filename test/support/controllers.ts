/**
 * Fakes cgroup controllers for a daemon under test, which preloads it (`node --import`). Each directory that the daemon
 * creates below FAKE_CGROUP gets the files of a cgroup with the memory, pids and cpu controllers. Some machines lack
 * these controllers in version 2.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';

const { mkdirSync } = fs;
const tree = process.env.FAKE_CGROUP ?? '';
fs.mkdirSync = ((path: string, options?: fs.MakeDirectoryOptions) => {
  const made = mkdirSync(path, options);
  if (path.startsWith(`${tree}/`))
    for (const name of [
      'cgroup.procs',
      'cgroup.kill',
      'memory.max',
      'memory.swap.max',
      'memory.events',
      'pids.max',
      'cpu.max',
    ])
      fs.writeFileSync(join(path, name), '');
  return made;
}) as typeof fs.mkdirSync;
syncBuiltinESMExports();
