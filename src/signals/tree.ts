import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { type ProcStat, readAll, readStat } from '../kernel/proc.ts';

/** A root of processes to find: the process itself while it is there, and the session that it leads or led. */
export interface TreeRoot {
  pid: number | null;
  session: number | null;
}

/**
 * The pids of a process and all its descendants, parents before children. Children whose parent has died are ours now,
 * and by their parent nobody can tell any more where they came from; by their session we still can.
 */
export function descendants(root: TreeRoot): number[] {
  const all = readAll();
  const children = new Map<number, number[]>();
  for (const [pid, { parent }] of all) {
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [pid]);
    else siblings.push(pid);
  }
  const found = new Set<number>();
  const add = (pid: number): void => {
    if (found.has(pid)) return;
    found.add(pid);
    for (const child of children.get(pid) ?? []) add(child);
  };
  if (root.pid !== null && all.has(root.pid)) add(root.pid);
  if (root.session !== null) for (const [pid, stat] of all) if (stat.session === root.session) add(pid);
  return [...found].filter((pid) => all.get(pid)!.state !== 'Z');
}

/**
 * Holds every process of a tree by a pidfd, so that none can be mistaken for a later one of its pid, and calls `send` on
 * each once. Looks again until a look finds nobody new: what was forked meanwhile is reached too.
 * @returns how many were reached
 */
export function eachOnce(find: () => number[], send: (pidfd: Pidfd, pid: number) => void): number {
  const reached = new Set<string>();
  for (let found = true; found; ) {
    found = false;
    for (const pid of find()) {
      const before = readStat(pid);
      if (before === null || reached.has(key(pid, before))) continue;
      using pidfd = tryOpen(pid);
      // Opened between two equal looks at it, so it is the one that was found.
      const after = readStat(pid);
      if (pidfd === null || after === null || key(pid, after) !== key(pid, before)) continue;
      reached.add(key(pid, before));
      found = true;
      send(pidfd, pid);
    }
  }
  return reached.size;
}

const key = (pid: number, { startTicks }: ProcStat): string => `${pid} ${startTicks}`;

function tryOpen(pid: number): Pidfd | null {
  try {
    return Pidfd.open(pid);
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return null;
    throw error;
  }
}
