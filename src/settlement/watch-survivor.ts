import { keepBelow } from '../kernel/descriptor.ts';
import { Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { hasEnded, type ProcStat, readStat } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';

/**
 * Watches a process until it ends.
 * @param found its stat when it was found
 * @param limit the pidfd gets a lower number than this
 * @param onEnd called from epoll, and must end the watch
 * @returns a function that ends the watch; `ended` if the process has ended, `unwatchable` if no descriptor is free
 */
export function watchSurvivor(
  pid: number,
  found: ProcStat,
  { epoll }: Pick<ProcessTable, 'epoll'>,
  limit: number,
  onEnd: () => void,
): (() => void) | 'ended' | 'unwatchable' {
  let pidfd: Pidfd | null = null;
  try {
    const own = keepBelow(Pidfd.open(pid), limit);
    pidfd = own;
    const stat = readStat(pid);
    // It was opened between two equal reads of its start, so it is the process that was found.
    if (stat === null || stat.startTicks !== found.startTicks || hasEnded(stat)) {
      own.close();
      return 'ended';
    }
    const registration = epoll.add(own, new Wakeup(onEnd));
    return () => {
      epoll.remove(registration);
      own.close();
    };
  } catch (error) {
    pidfd?.close();
    if (isErrno(error, 'ESRCH')) return 'ended';
    if (isErrno(error, 'EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC')) return 'unwatchable';
    throw error;
  }
}
