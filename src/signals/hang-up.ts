import { constants } from 'node:os';
import { ignoresSignal, readStat } from '../kernel/proc.ts';

/**
 * Reports whether a process leads the session of its terminal and ignores SIGTERM, as interactive shells do. Such a process ends when its
 * terminal hangs up. One that handles SIGTERM must not get SIGHUP too: the kernel delivers that first, and it ends by default.
 */
export function endsByHangUp(pid: number): boolean {
  const stat = readStat(pid);
  if (stat === null || stat.session !== pid || stat.terminal === 0) return false;
  return ignoresSignal(pid, constants.signals.SIGTERM);
}
