import { Problem } from '../errors/problem.ts';
import { keepBelow } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { since } from '../kernel/features.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { threadGroupOf } from '../kernel/proc.ts';

export function openPid(pid: number, nonblocking: boolean, descriptors: number): Pidfd {
  try {
    return keepBelow(Pidfd.open(pid, nonblocking), descriptors);
  } catch (error) {
    // A thread's id: ENOENT, before 6.16 EINVAL. On a kernel without the nonblocking flag EINVAL is about that.
    if (!isErrno(error, 'ESRCH', 'ENOENT', 'EINVAL')) throw error;
    const leader = isErrno(error, 'ESRCH') ? null : threadGroupOf(pid);
    if (leader === null || leader === pid) throw noProcess(pid);
    throw new Problem('ESRCH', `${pid} is a thread of process ${leader}: open ${leader}.`, { syscall: 'pidfd_open' });
  }
}

export function isThere(pidfd: Pidfd): boolean {
  try {
    pidfd.signal(0);
    return true;
  } catch (error) {
    return isErrno(error, 'EPERM');
  }
}

export function requireInode(wanted: string, found: string | null, pid: number): void {
  if (found === null)
    throw new Problem('EOPNOTSUPP', `Processes have an inode since Linux ${since.inode}: open by pid alone.`);
  if (wanted !== found)
    throw new Problem(
      'ESRCH',
      `Process ${pid} is not the one that was meant: that one has ended, and its pid is another's.`,
    );
}

export function noProcess(pid: number): Problem {
  return new Problem('ESRCH', `There is no process ${pid}.`, { syscall: 'pidfd_open' });
}
