import type { TerminationFacts } from '../journal/change.ts';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';

/** The process of a termination, or the group that it led. */
export interface Target {
  pidfd: Pidfd;
  /** `null` if it has no handle, or has been reaped. */
  process: Process | null;
  /** Closes the pidfd if it was opened for this. */
  release(): void;
}

const nothing = (): void => {};

/** Finds the process that was meant, or the group that it led. @returns `null` if both have ended */
export function targetOf(
  { pid, inode, startTicks, process: id }: Omit<TerminationFacts, 'scope' | 'killAt'>,
  table: ProcessTable,
): Target | null {
  const held = table.get(pid);
  const pidfd = held?.inode === inode ? [...held.descriptions][0]?.pidfd : undefined;
  if (held !== undefined && pidfd) return { pidfd, process: held, release: nothing };
  const kept = table.groups.get({ id });
  if (kept !== undefined) return { pidfd: kept, process: null, release: nothing };
  const opened = openIfThere(pid);
  if (opened === null) return null;
  const isMeant = inode === null ? readStat(pid)?.startTicks === startTicks : opened.inode === inode;
  if (isMeant) return { pidfd: opened, process: null, release: () => opened.close() };
  opened.close();
  return null;
}

/** Opens a pidfd. @returns `null` if the process does not exist, or no descriptor is free */
export function openIfThere(pid: number): Pidfd | null {
  try {
    return Pidfd.open(pid);
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EINVAL', 'ENOENT', 'EMFILE', 'ENFILE')) return null;
    throw error;
  }
}
