import { readFileSync } from 'node:fs';
import { isErrno } from '../kernel/errno.ts';
import type { SignalScope } from '../kernel/pidfd.ts';
import { hasEnded, readAll, readStat } from '../kernel/proc.ts';

/** CAP_KILL in include/uapi/linux/capability.h. */
const CAP_KILL = 5n;

function maySignalAll(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return ((BigInt(`0x${effective ?? '0'}`) >> CAP_KILL) & 1n) === 1n;
}

/**
 * Returns the members of a process or group that the daemon may not signal. The kernel reports success for a group if one member
 * could be signalled, so each member is asked by itself.
 * @param always whether they are asked even if the daemon has the capability to signal all
 */
export function refusedMembers({ pid, scope }: { pid: number; scope: SignalScope }, always = false): number[] {
  if (!always && maySignalAll()) return [];
  const members =
    scope === 'process'
      ? [pid]
      : [...readAll()].flatMap(([member, stat]) => (stat.group === pid && !hasEnded(stat) ? [member] : []));
  return members.filter((member) => {
    try {
      process.kill(member, 0);
      return false;
    } catch (error) {
      return isErrno(error, 'EPERM');
    }
  });
}

/** Returns whether no process of this pid is left, or only a zombie. */
export function isOver(pid: number): boolean {
  const stat = readStat(pid);
  return stat === null || hasEnded(stat);
}
