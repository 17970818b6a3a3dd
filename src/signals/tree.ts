import { constants } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { isErrno } from '../kernel/errno.ts';
import { isPidInUse } from '../kernel/pid-in-use.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { hasEnded, listChildren, type ProcStat, readNewestFirst, readStat } from '../kernel/proc.ts';

const { SIGKILL, SIGSTOP } = constants.signals;

/** Where a tree of processes begins, as it is now. */
export interface TreeRoot {
  /** The process itself, while it has not ended. */
  pid: number | null;
  /** The session that it leads, or that it led and that has members left. */
  session: number | null;
  /** Members that are known by its cgroup. */
  others: readonly number[];
}

/** The result of a signal to a tree. */
export interface Reached {
  /** How many processes got it. */
  count: number;
  /** The pids of those that the daemon may not signal. */
  refused: number[];
  /** Whether two searches in a row found no other process. */
  isComplete: boolean;
}

/** How long a tree is searched that grows as fast as it is signalled, in milliseconds. */
const LONGEST_MS = 3000;

/** How long it tries to stop a tree, in milliseconds. No other request is served meanwhile. */
const LONGEST_STOP_MS = 100;

/** How often in a row the latest children of the daemon are checked, and how many of them. */
const ORPHAN_CHECKS = 16;
const ORPHANS = 8;

/** How many searches in a row must find no other member. One may miss the child of a process that has just ended. */
const QUIET_SEARCHES = 2;

/** The members of a tree, as one search has found them. */
interface Found {
  /** Parents before their children. */
  members: Map<number, ProcStat>;
  /** Process groups in sessions that belong to the tree: no other process can join them. */
  groups: Set<number>;
  /** The other process groups whose members all belong to the tree now. */
  exclusive: Set<number>;
  /** Whether the number of a leaderless session is in use as a session, and as a group. */
  isSession: boolean;
  isGroup: boolean;
  /** Whether ended members wait to be reaped by a parent other than the daemon. */
  hasZombies: boolean;
}

/**
 * Signals every process of a tree once. Each is opened as a pidfd, so that no later process of its pid gets the signal. It goes on until
 * no search finds another, so that processes that were forked meanwhile get it too. The event loop serves others in between.
 *
 * Before a SIGKILL the tree is stopped, so that no member forks, or passes its children on, while others are being killed. That is left
 * out in groups with foreign members: the end of a member may orphan its group, and the kernel then sends SIGHUP to it if one is stopped.
 * @param root called for each search
 */
export async function signalTree(root: () => TreeRoot, number: number): Promise<Reached> {
  if (number === SIGKILL) stop(root);
  const round = new Round(root, number);
  const until = performance.now() + LONGEST_MS;
  for (let quiet = 0; quiet < QUIET_SEARCHES; ) {
    if (performance.now() > until) return { ...round.reached, isComplete: false };
    quiet = round.search() ? quiet + 1 : 0;
    await setImmediate();
  }
  return { ...round.reached, isComplete: true };
}

/** Stops a tree in one turn of the event loop: else the daemon would report stops that the ends overtake. */
function stop(root: () => TreeRoot): void {
  const round = new Round(
    root,
    SIGSTOP,
    ({ group }, { groups, exclusive }) => groups.has(group) || exclusive.has(group),
  );
  const until = performance.now() + LONGEST_STOP_MS;
  while (!round.search() && performance.now() < until);
}

/** The delivery of one signal to a tree. */
class Round {
  readonly #root: () => TreeRoot;
  readonly #number: number;
  readonly #isMeant: (stat: ProcStat, found: Found) => boolean;
  readonly #done = new Set<string>();
  readonly #refused = new Map<number, string>();
  #count = 0;
  #isSession = false;

  constructor(root: () => TreeRoot, number: number, isMeant: (stat: ProcStat, found: Found) => boolean = () => true) {
    this.#root = root;
    this.#number = number;
    this.#isMeant = isMeant;
  }

  get reached(): Omit<Reached, 'isComplete'> {
    const refused = [...this.#refused].filter(([pid, key]) => isThere(pid, key)).map(([pid]) => pid);
    return { count: this.#count, refused };
  }

  /**
   * Searches once, and signals every member that has not had the signal yet. SIGKILL and SIGSTOP are also sent to whole process groups:
   * fork fails while a signal is pending (copy_process() in kernel/fork.c), so no chain of processes that fork and exit outruns them.
   * @returns whether there was no such member
   */
  search(): boolean {
    const root = this.#root();
    const found = search(root);
    this.#isSession = root.session !== null && (this.#isSession || found.isSession);
    if (this.#number === SIGKILL || this.#number === SIGSTOP) {
      if (this.#isSession && this.#signalOrphans(root.session!)) this.#count += 1;
      const own = this.#isSession && !found.groups.has(root.session!) ? [root.session!] : [];
      // A group accepts a signal even if all its members are zombies.
      for (const group of [...found.groups, ...own])
        if (signalGroup(group, this.#number) && (found.groups.has(group) || !found.hasZombies)) this.#count += 1;
    }
    // If the leader was reaped and its number is still in use, this search fell between two members of a chain, or the daemon reaps soon.
    const isExplained = found.hasZombies || (found.isGroup && !this.#isSession);
    const isHidden = root.pid === null && root.session !== null && found.members.size === 0 && !isExplained;
    let isQuiet = !(isHidden && isPidInUse(root.session!));
    for (const [pid, stat] of found.members) {
      const key = keyOf(pid, stat);
      if (this.#done.has(key) || !this.#isMeant(stat, found)) continue;
      isQuiet = false;
      const result = signalOne(pid, key, this.#number);
      if (result === 'ended') continue;
      this.#done.add(key);
      if (result === 'refused') this.#refused.set(pid, key);
      else this.#count += 1;
    }
    return isQuiet;
  }

  /**
   * Signals the latest orphans. A member whose parent has exited is a child of the daemon, and those are listed much faster than all
   * processes. So a member that forks and exits in its turn, in a group of its own, is caught before it does.
   * @returns whether a member was found
   */
  #signalOrphans(session: number): boolean {
    let found = false;
    for (let time = 0; time < ORPHAN_CHECKS; time += 1)
      for (const pid of listChildren().slice(-ORPHANS)) {
        const stat = readStat(pid);
        if (stat === null || stat.session !== session || hasEnded(stat)) continue;
        if (signalGroup(stat.group, this.#number)) found = true;
      }
    return found;
  }
}

function isThere(pid: number, key: string): boolean {
  const stat = readStat(pid);
  return stat !== null && keyOf(pid, stat) === key && !hasEnded(stat);
}

/** Returns the pids of a tree. */
export function pidsOf(root: TreeRoot): number[] {
  return [...search(root).members.keys()];
}

/**
 * Searches the members of a tree: the descendants of its root, and the members of every session that one of them leads, with theirs. A
 * child whose parent has died is the daemon's or init's. Its session still tells where it comes from, because no process can join one.
 */
function search({ pid: root, session: own, others }: TreeRoot): Found {
  const all = readNewestFirst();
  const children = Map.groupBy(all, ([, { parent }]) => parent);
  const bySession = Map.groupBy(all, ([, { session }]) => session);
  const found = new Map<number, ProcStat>();
  const sessions = new Set<number>();
  const waiting: [number, ProcStat][] = [];
  const add = (entries: Iterable<[number, ProcStat]>): void => {
    for (const entry of entries) if (!found.has(entry[0])) waiting.push(entry);
  };
  const addSession = (session: number): void => {
    if (sessions.has(session)) return;
    sessions.add(session);
    add(bySession.get(session) ?? []);
  };
  if (own !== null) addSession(own);
  const named = new Set(root === null ? others : [root, ...others]);
  add([...all].filter(([pid]) => named.has(pid)));
  for (let entry = waiting.pop(); entry !== undefined; entry = waiting.pop()) {
    const [pid, stat] = entry;
    if (found.has(pid)) continue;
    found.set(pid, stat);
    if (stat.session === pid) addSession(pid);
    add(children.get(pid) ?? []);
  }
  const living = [...found].filter(([, stat]) => !hasEnded(stat));
  const [owned, shared] = [new Set<number>(), new Set<number>()];
  for (const [, { session, group }] of living) (sessions.has(session) ? owned : shared).add(group);
  for (const [pid, { group }] of all) if (!found.has(pid)) shared.delete(group);
  const hasZombies = [...found.values()].some((stat) => hasEnded(stat) && stat.parent !== process.pid);
  return {
    members: new Map(living),
    groups: owned,
    exclusive: shared,
    hasZombies,
    isSession: own !== null && (own === root || bySession.has(own)),
    isGroup: all.some(([, { group }]) => group === own),
  };
}

/** @returns whether a process of the group got it */
function signalGroup(group: number, number: number): boolean {
  try {
    process.kill(-group, number);
    return true;
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EPERM')) return false;
    throw error;
  }
}

function signalOne(pid: number, key: string, number: number): 'signalled' | 'refused' | 'ended' {
  using pidfd = tryOpen(pid);
  const stat = readStat(pid);
  // It was opened between two equal reads of its start, so it is the process that was found.
  if (pidfd === null || stat === null || keyOf(pid, stat) !== key) return 'ended';
  try {
    pidfd.signal(number);
    return 'signalled';
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return 'ended';
    if (isErrno(error, 'EPERM')) return 'refused';
    throw error;
  }
}

const keyOf = (pid: number, { startTicks }: ProcStat): string => `${pid} ${startTicks}`;

function tryOpen(pid: number): Pidfd | null {
  try {
    return Pidfd.open(pid);
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return null;
    throw error;
  }
}
