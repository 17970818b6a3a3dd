/**
 * Runs a command, and fails if it leaves a process, a mount, a cgroup or a file in its temporary directory. Lists all
 * of them, and removes the processes, the mounts and the files.
 * usage: node test/support/leaks.ts COMMAND [ARG…]
 */
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { becomeSubreaper } from '../../src/kernel/subreaper.ts';
import { P_PID, WEXITED, WNOHANG, waitid } from '../../src/kernel/waitid.ts';
import { descendantsOf, kill, mountsBelow, removeTree } from './leftovers.ts';

/** The time for removals that are in progress when the command ends. */
const GRACE_MS = 10_000;

/** Where Node.js keeps compiled code; see module.enableCompileCache(). */
const CACHE = 'node-compile-cache';

const [command, ...args] = process.argv.slice(2);
if (command === undefined) {
  console.error('usage: node test/support/leaks.ts COMMAND [ARG…]');
  process.exit(64);
}

function cgroups(): Set<string> {
  const found = new Set<string>();
  const walk = (directory: string): void => {
    found.add(directory);
    try {
      for (const entry of readdirSync(directory, { withFileTypes: true }))
        if (entry.isDirectory()) walk(join(directory, entry.name));
    } catch {
      found.delete(directory); // removed in the meantime
    }
  };
  walk('/sys/fs/cgroup');
  return found;
}

/** The cgroups of podman and buildah, which leave empty ones on a machine with both versions of cgroups. */
const ENGINES = /^\/sys\/fs\/cgroup\/.*\/?(libpod_parent|buildah-)/;

/**
 * Reports whether a cgroup is empty. A process in it belongs to another program, because the command's processes have
 * ended.
 */
function isEmpty(cgroup: string): boolean {
  try {
    return readFileSync(join(cgroup, 'cgroup.procs'), 'utf8') === '';
  } catch {
    return false;
  }
}

const nameOf = (pid: number): string => {
  try {
    return `${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim().slice(0, 200)}`;
  } catch {
    return String(pid);
  }
};

// As a subreaper this process adopts every orphan of the command, and no other process of the machine.
becomeSubreaper();
const temporary = mkdtempSync(join(tmpdir(), 'waitd-run-'));
chmodSync(temporary, 0o1777);
const cgroupsBefore = cgroups();
// A test run starts a thousand daemons. A shared compile cache saves a third of what each start costs.
const environment = { ...process.env, TMPDIR: temporary, NODE_COMPILE_CACHE: join(temporary, CACHE) };
const child = spawn(command, args, { stdio: 'inherit', env: environment });

/** Reaps orphans. Node.js reaps its own child. */
function reap(): void {
  for (const pid of descendantsOf(process.pid)) {
    if (pid === child.pid) continue;
    try {
      waitid(P_PID, pid, WEXITED | WNOHANG);
    } catch {
      // Not an orphan: its parent is alive.
    }
  }
}
const reaping = setInterval(reap, 100);

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(signal, () => {
    for (const pid of descendantsOf(process.pid)) kill(pid);
    removeTree(temporary);
    process.exit(128 + constants.signals[signal]);
  });

const code = await new Promise<number>((resolve) => {
  child.once('error', (error) => {
    console.error(`${command}: ${error.message}`);
    resolve(127);
  });
  child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
});

const leaks = (): Record<string, string[]> => ({
  process: descendantsOf(process.pid).map(nameOf),
  mount: mountsBelow(temporary),
  file: readdirSync(temporary)
    .filter((name) => name !== CACHE)
    .map((name) => join(temporary, name)),
  cgroup: [...cgroups()].filter((path) => !cgroupsBefore.has(path) && isEmpty(path) && !ENGINES.test(path)),
});
const deadline = Date.now() + GRACE_MS;
let left = leaks();
while (Object.values(left).some((names) => names.length > 0) && Date.now() < deadline) {
  await setTimeout(100);
  left = leaks();
}
clearInterval(reaping);
const lines = Object.entries(left).flatMap(([what, names]) => names.map((name) => `left behind: ${what} ${name}`));
if (lines.length > 0) console.error(lines.join('\n'));
for (const pid of descendantsOf(process.pid)) kill(pid);
removeTree(temporary);
process.exitCode = code || Number(lines.length > 0);
