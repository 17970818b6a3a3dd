import { Problem } from '../errors/problem.ts';
import { readComm, readStat, readTracer } from '../kernel/proc.ts';
import type { Handle } from '../model/process.ts';

function nameOf(pid: number): string {
  return `${pid} (${readComm(pid) ?? 'ended'})`;
}

/** At most so many are named. */
const NAMED = 10;

/** EPERM, with the processes that it is about. */
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

/** ETIMEDOUT: it was killed, and something in the kernel holds it. */
export function stillThere(pid: number, { id }: Handle): Problem {
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

/** ETIMEDOUT: a tree makes processes as fast as they are killed. */
export function stillGrows({ id }: Handle): Problem {
  const detail =
    'The tree makes new processes as fast as they are killed. Send the signal again, or spawn it in a cgroup, which is killed at once.';
  return new Problem('ETIMEDOUT', detail, { handle: id });
}
