import type { Deadline } from '../deadlines/deadlines.ts';
import type { Problem } from '../errors/problem.ts';
import type { Change, TerminationFacts } from '../journal/change.ts';
import type { Handle } from '../model/process.ts';

/** A process that is being terminated. */
export interface Termination extends TerminationFacts {
  /** Of the SIGKILL; after that, of the verdict. */
  deadline: Deadline;
  isKilled: boolean;
  /** Once the leader of a group has ended: the next check whether the group lives. */
  nextCheck: Deadline | null;
  /** Makes the problem that says why it has not ended; `null` until that is decided. */
  verdict: ((handle: Handle) => Problem) | null;
}

/** The change that writes a termination as it is now. A later change of it is written by itself. */
export function written({ pid, inode, startTicks, process, scope, killAt }: Termination): Change {
  return { write: 'termination', termination: { pid, inode, startTicks, process, scope, killAt } };
}
