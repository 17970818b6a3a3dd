import { Problem } from '../errors/problem.ts';
import { keepBelow } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { since } from '../kernel/features.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { threadGroupOf } from '../kernel/proc.ts';

/**
 * Opens the pidfd of a process for a handle.
 * @param descriptors its number is lower than this
 * @throws {Problem} ESRCH; {SystemError} EMFILE, ENFILE, ENOMEM
 */
export function openPid(pid: number, nonblocking: boolean, descriptors: number): Pidfd {
  try {
    return keepBelow(Pidfd.open(pid, nonblocking), descriptors);
  } catch (error) {
    // The id of a thread fails with ENOENT, before 6.16 with EINVAL. A kernel without the nonblocking flag fails with EINVAL too.
    if (!isErrno(error, 'ESRCH', 'ENOENT', 'EINVAL')) throw error;
    const leader = isErrno(error, 'ESRCH') ? null : threadGroupOf(pid);
    if (leader === null || leader === pid) throw noProcess(pid);
    throw new Problem('ESRCH', `${pid} is a thread of process ${leader}: open ${leader}.`, { syscall: 'pidfd_open' });
  }
}

/** Returns whether the process exists, be it a zombie. */
export function isThere(pidfd: Pidfd): boolean {
  try {
    pidfd.signal(0);
    return true;
  } catch (error) {
    return isErrno(error, 'EPERM');
  }
}

/** @throws {Problem} ESRCH if the process is not the one that was meant; EOPNOTSUPP before Linux 6.9 */
export function requireInode(wanted: string, found: string | null, pid: number): void {
  if (found === null)
    throw new Problem(
      'EOPNOTSUPP',
      `Processes have an inode since Linux ${since.inode}: open this one by its pid alone.`,
    );
  if (wanted !== found)
    throw new Problem(
      'ESRCH',
      `Process ${pid} does not have inode ${wanted}: the process with that inode has ended, and its pid was reused.`,
    );
}

export function noProcess(pid: number): Problem {
  return new Problem('ESRCH', `Process ${pid} does not exist.`, { syscall: 'pidfd_open' });
}
