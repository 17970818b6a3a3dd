import { constants, openSync } from 'node:fs';
import { Descriptor } from '../kernel/descriptor.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { ForkServer } from '../spawn/fork-server.ts';
import { launchOwn } from '../spawn/launch.ts';
import { type Handoff, rehearsalOf } from './handoff.ts';

/** Long enough for a start on a machine that is slow and busy: meanwhile this daemon serves. A start that hangs is no good. */
const LONGEST_MS = 120_000;

/** What of its output is told. */
const SAID = 2000;

/** What the service manager gave is this daemon's, not its rehearsal's. */
const ours = new Set(['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']);

/**
 * Has what this daemon's command now is rehearse its start, in a process of its own.
 * @param reaper tells how it ends
 * @param forkServer starts it
 * @param listeners the sockets that it would be handed
 * @returns why it would fail, in its own words; `null` where all is well
 */
export async function rehearseUpgrade(
  reaper: Reaper,
  forkServer: ForkServer,
  listeners: Handoff['listeners'],
): Promise<string | null> {
  using nothing = new Descriptor(openSync('/dev/null', constants.O_RDONLY));
  using said = MemoryFile.create('waitd-check');
  const environment = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined || ours.has(name) ? [] : [[name, value]],
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
  const { pid, ended } = await started(reaper, () => launchOwn(forkServer, request, [nothing.fd, said.fd, said.fd]));
  // Only we reap it, so the number is its own until then.
  let late = false;
  const tooLong = setTimeout(() => {
    late = true;
    process.kill(pid, 'SIGKILL');
  }, LONGEST_MS);
  const { siginfo } = await ended;
  clearTimeout(tooLong);
  if (siginfo.code === 'CLD_EXITED' && siginfo.status === 0) return null;
  if (late) return `its rehearsal had not ended after ${LONGEST_MS / 1000} s`;
  return said.read().slice(-SAID).trim() || `it ended with ${siginfo.code} ${siginfo.status}`;
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
