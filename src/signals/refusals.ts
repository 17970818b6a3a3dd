import { Problem } from '../errors/problem.ts';
import { readComm, readStat, readTracer } from '../kernel/proc.ts';
import type { Handle } from '../model/process.ts';

function nameOf(pid: number): string {
  return `${pid} (${readComm(pid) ?? 'ended'})`;
}

/** How many processes a problem names at most. */
const NAMED = 10;

/** Makes EPERM with the processes that could not be signalled. */
export function notPermitted(pids: readonly number[], { id }: Handle): Problem {
  const names = pids.slice(0, NAMED).map(nameOf).join(', ');
  const more = pids.length > NAMED ? `, and ${pids.length - NAMED} more` : '';
  const which = pids.length === 1 ? 'process' : 'processes';
  return new Problem(
    'EPERM',
    `The kernel does not let the daemon signal ${which} ${names}${more}. The others were signalled; give the daemon CAP_KILL for these.`,
    { syscall: 'pidfd_send_signal', handle: id },
  );
}

const states: Record<string, string> = {
  D: 'uninterruptible sleep',
  Z: 'zombie',
  T: 'stopped',
  t: 'stopped by a tracer',
  R: 'running',
  S: 'sleeping',
  I: 'idle',
  X: 'dead',
};

/** Makes ETIMEDOUT for a killed process that the kernel does not let end. */
export function hasNotEnded(pid: number, { id }: Handle): Problem {
  const state = readStat(pid)?.state ?? 'X';
  const tracer = readTracer(pid);
  const held = tracer === null ? '' : `, held by its tracer, process ${nameOf(tracer)}`;
  const cure =
    tracer === null ? 'Wait for it with waitid or poll.' : 'End the tracer, then wait for it with waitid or poll.';
  return new Problem(
    'ETIMEDOUT',
    `Process ${nameOf(pid)} was killed and has not ended: state ${state} (${states[state] ?? 'unknown'})${held}. ${cure}`,
    { handle: id },
  );
}

/** Makes ETIMEDOUT for a tree that makes processes as fast as they are killed. */
export function stillGrows({ id }: Handle): Problem {
  const detail =
    'The tree makes new processes as fast as they are killed: send the signal again, or spawn it in a cgroup, which is killed at once.';
  return new Problem('ETIMEDOUT', detail, { handle: id });
}
