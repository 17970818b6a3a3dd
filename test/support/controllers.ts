/**
 * Loaded before a daemon (`--import`): puts into every directory that it makes below FAKE_CGROUP the files that the kernel puts into a
 * cgroup which has the memory, pids and cpu controllers. Not every machine hands these to version 2.
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
