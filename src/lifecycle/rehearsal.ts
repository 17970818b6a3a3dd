import { constants, openSync } from 'node:fs';
import { Descriptor } from '../kernel/descriptor.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { ForkServer } from '../spawn/fork-server.ts';
import { launchOwn } from '../spawn/launch.ts';
import { type Handoff, rehearsalOf } from './handoff.ts';

/** The time limit of a rehearsal, long enough for a slow and busy machine. The daemon continues to serve meanwhile. */
const LONGEST_MS = 120_000;

/** The maximum length of its output in the log. */
const LONGEST_OUTPUT = 2000;

/** The variables of the service manager for this daemon, which a rehearsal must not use. */
const managerVariables = new Set(['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']);

/**
 * Rehearses an upgrade: runs this daemon's command with `--check` in a separate process.
 * @param reaper reports the end of the rehearsal
 * @param forkServer starts the rehearsal
 * @param listeners the sockets that the next image would inherit
 * @returns the reason why the next image would fail; `null` if it would start
 */
export async function rehearseUpgrade(
  reaper: Reaper,
  forkServer: ForkServer,
  listeners: Handoff['listeners'],
): Promise<string | null> {
  using nothing = new Descriptor(openSync('/dev/null', constants.O_RDONLY));
  using output = MemoryFile.create('waitd-check');
  const environment = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined || managerVariables.has(name) ? [] : [[name, value]],
  );
  const [program, ...args] = [process.execPath, ...process.execArgv, ...process.argv.slice(1), '--check'];
  const env = { ...(Object.fromEntries(environment) as Record<string, string>), ...rehearsalOf(listeners) };
  const request = {
    argv: [program!, ...args] as [string, ...string[]],
    env,
    wholeEnvironment: true,
    cwd: process.cwd(),
    stdin: 'null' as const,
    stdout: 'null' as const,
    stderr: 'null' as const,
  };
  const { pid, ended } = await started(reaper, () =>
    launchOwn(forkServer, request, [nothing.fd, output.fd, output.fd]),
  );
  // Only this process reaps the child, so its pid is not reused before.
  let late = false;
  const tooLong = setTimeout(() => {
    late = true;
    process.kill(pid, 'SIGKILL');
  }, LONGEST_MS);
  const { siginfo } = await ended;
  clearTimeout(tooLong);
  if (siginfo.code === 'CLD_EXITED' && siginfo.status === 0) return null;
  if (late) return `the rehearsal did not end within ${LONGEST_MS / 1000} s`;
  return output.read().slice(-LONGEST_OUTPUT).trim() || `the rehearsal ended with ${siginfo.code} ${siginfo.status}`;
}

async function started(
  reaper: Reaper,
  launch: () => Promise<number>,
): Promise<{ pid: number; ended: Promise<WaitEvent> }> {
  const spawn = reaper.beginSpawn();
  try {
    const pid = await launch();
    return { pid, ended: reaper.ownChildEnded(pid) };
  } finally {
    spawn.done();
  }
}
