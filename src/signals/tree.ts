import { constants } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { isErrno } from '../kernel/errno.ts';
import { isPidInUse } from '../kernel/pid-in-use.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { hasEnded, listChildren, type ProcStat, readNewestFirst, readStat } from '../kernel/proc.ts';

const { SIGKILL, SIGSTOP } = constants.signals;

/** Where a tree of processes begins, as it is now: each look asks again. */
export interface TreeRoot {
  /** The process itself, while it has not ended. */
  pid: number | null;
  /** The session that it leads, or that it led and that has members left. */
  session: number | null;
  /** Members that are known otherwise: those of its cgroup. */
  others: readonly number[];
}

/** What became of a signal to a tree. */
export interface Reached {
  /** How many processes took it. */
  count: number;
  /** Those that the daemon may not signal. */
  refused: number[];
  /** Whether the looks came to an end: two in a row found nobody new. */
  isComplete: boolean;
}

/** How long a tree is looked for that grows as fast as it is signalled. */
const LONGEST_MS = 3000;

/** How long it is tried to stop one; nobody else is served meanwhile. */
const LONGEST_STOP_MS = 100;

/** How often in a row the latest children of the daemon are looked at, and how many of them. */
const ORPHAN_LOOKS = 16;
const ORPHANS = 8;

/** In a row, without a new member: one may fall between a process that has ended and its child that was not listed yet. */
const QUIET_LOOKS = 2;

/** The members of a tree at one look. */
interface Look {
  /** Parents before their children. */
  members: Map<number, ProcStat>;
  /** Process groups in sessions that belong to the tree: nobody else can join them. */
  groups: Set<number>;
  /** The other process groups of which each member is one of the tree now. */
  exclusive: Set<number>;
  /** What the number of a session that has lost its leader was seen to be; a group may have it just as well. */
  isSession: boolean;
  isGroup: boolean;
  /** Whether members that have ended wait for a parent other than the daemon to reap them. */
  hasZombies: boolean;
}

/**
 * Signals every process of a tree, each once. It holds each by a pidfd, so that none is mistaken for a later process of its pid, and
 * goes on until no look finds another: what was forked meanwhile is reached too. Other work of the event loop is done in between.
 *
 * Before a SIGKILL the tree is stopped, so that no member forks, or hands its children on, while others are being killed. Not in groups that
 * another process is in: the end of a member may orphan its group, and the kernel then sends SIGHUP to all in it if one is stopped.
 * @param root called for each look
 */
export async function signalTree(root: () => TreeRoot, number: number): Promise<Reached> {
  if (number === SIGKILL) stop(root);
  const round = new Round(root, number);
  const until = performance.now() + LONGEST_MS;
  for (let quiet = 0; quiet < QUIET_LOOKS; ) {
    if (performance.now() > until) return { ...round.reached, isComplete: false };
    quiet = round.look() ? quiet + 1 : 0;
    await setImmediate();
  }
  return { ...round.reached, isComplete: true };
}

/** In one go: otherwise the daemon would report stops that the ends overtake. */
function stop(root: () => TreeRoot): void {
  const round = new Round(
    root,
    SIGSTOP,
    ({ group }, { groups, exclusive }) => groups.has(group) || exclusive.has(group),
  );
  const until = performance.now() + LONGEST_STOP_MS;
  while (!round.look() && performance.now() < until);
}

/** One signal on its way through a tree. */
class Round {
  readonly #root: () => TreeRoot;
  readonly #number: number;
  readonly #isMeant: (stat: ProcStat, look: Look) => boolean;
  readonly #done = new Set<string>();
  readonly #refused = new Map<number, string>();
  #count = 0;
  #isSession = false;

  constructor(root: () => TreeRoot, number: number, isMeant: (stat: ProcStat, look: Look) => boolean = () => true) {
    this.#root = root;
    this.#number = number;
    this.#isMeant = isMeant;
  }

  get reached(): Omit<Reached, 'isComplete'> {
    const refused = [...this.#refused].filter(([pid, key]) => isThere(pid, key)).map(([pid]) => pid);
    return { count: this.#count, refused };
  }

  /**
   * Looks once, and signals whoever has not had the signal yet. SIGKILL and SIGSTOP also go to whole process groups at once: while a signal
   * is pending fork fails (copy_process() in kernel/fork.c), so no chain of processes that fork and exit outruns them.
   * @returns whether there was nobody
   */
  look(): boolean {
    const root = this.#root();
    const found = look(root);
    this.#isSession = root.session !== null && (this.#isSession || found.isSession);
    if (this.#number === SIGKILL || this.#number === SIGSTOP) {
      if (this.#isSession && this.#signalOrphans(root.session!)) this.#count += 1;
      const own = this.#isSession && !found.groups.has(root.session!) ? [root.session!] : [];
      // A group takes a signal also where all its members are zombies.
      for (const group of [...found.groups, ...own])
        if (signalGroup(group, this.#number) && (found.groups.has(group) || !found.hasZombies)) this.#count += 1;
    }
    // The leader was reaped, and its number is still in use: this look came between two members of a chain, or the daemon is about to reap.
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
   * A member whose parent has exited is a child of the daemon, and these are listed in far less time than all processes: a member that is
   * about to fork and exit in its turn, in another group than its parent's, is caught before it does.
   * @returns whether there was one
   */
  #signalOrphans(session: number): boolean {
    let found = false;
    for (let time = 0; time < ORPHAN_LOOKS; time += 1)
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

/** The pids of a tree. */
export function pidsOf(root: TreeRoot): number[] {
  return [...look(root).members.keys()];
}

/**
 * Looks for the members of a tree: the descendants of its root, and the members of every session that one of them leads, with theirs. A
 * child whose parent has died is ours or init's; its session still tells where it comes from, and nobody can join another's session.
 */
function look({ pid: root, session: own, others }: TreeRoot): Look {
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

/** @returns whether somebody took it */
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
  // It was opened between two equal looks at it, so it is the one that was found.
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
