import { isPidInUse } from '../kernel/pid-in-use.ts';
import { hasEnded, type ProcStat, readStat } from '../kernel/proc.ts';
import type { Process, Stray } from '../model/process.ts';
import type { Census } from './census.ts';

/**
 * Returns where the search for what a process has left begins.
 * @param startTicks of the process while it lives
 */
export function rootsOf({ pid, remains }: Process, startTicks: number | null = null): Stray[] {
  return [{ pid, startTicks }, ...(remains?.strays ?? [])];
}

/**
 * Reports whether a process, its group or its session may still exist. The kernel does not reuse the number of a process while it is
 * that of a group or a session. So a number that is free, or that a later process has, shows that nothing is left.
 */
export function mayBeLeft({ pid, startTicks }: Stray): boolean {
  return isPidInUse(pid) && mayBe(readStat(pid) ?? undefined, startTicks);
}

/** @param startTicks of the process, `null` if it has ended: it may still be a zombie, but no live process has its number then */
function mayBe(stat: ProcStat | undefined, startTicks: number | null): boolean {
  if (stat === undefined) return true;
  return startTicks === null ? hasEnded(stat) : stat.startTicks === startTicks;
}

/**
 * Finds the processes that belong to these roots: themselves, the members of their groups and sessions, all descendants, and the members
 * of groups and sessions that a descendant leads. Includes zombies.
 */
export function membersOf(roots: readonly Stray[], census: Census): Map<number, ProcStat> {
  const found = new Map<number, ProcStat>();
  const waiting = roots
    .filter(({ pid, startTicks }) => mayBe(census.get(pid), startTicks))
    .flatMap(({ pid }) => [pid, ...census.session(pid), ...census.group(pid)]);
  for (let pid = waiting.pop(); pid !== undefined; pid = waiting.pop()) {
    const stat = census.get(pid);
    if (stat === undefined || found.has(pid)) continue;
    found.set(pid, stat);
    waiting.push(...census.childrenOf(pid));
    if (stat.session === pid) waiting.push(...census.session(pid));
    if (stat.group === pid) waiting.push(...census.group(pid));
  }
  return found;
}

/**
 * Returns what must be remembered to find these members again when their parents have ended: those outside of the group and the session
 * of the process. One entry is enough for a session that began below the process, because nobody can join a session.
 */
export function straysOf(
  { pid: main, remains }: Process,
  members: ReadonlyMap<number, ProcStat>,
  census: Census,
): Stray[] {
  const known = (remains?.strays ?? []).filter(mayBeLeft);
  const strays = new Map(known.map((stray) => [stray.pid, stray]));
  const isLeader = census.session(main).length > 0;
  for (const [pid, stat] of members) {
    const { session, group, startTicks } = stat;
    if (hasEnded(stat) || session === main || group === main) continue;
    const leader = members.get(session);
    if (leader !== undefined) strays.set(session, { pid: session, startTicks: leader.startTicks });
    else if (strays.has(session) || isLeader) strays.set(session, { pid: session, startTicks: null });
    else strays.set(pid, { pid, startTicks });
  }
  return [...strays.values()];
}
