import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Caller } from '../clients/caller.ts';
import type { Deadline, Deadlines } from '../deadlines/deadlines.ts';
import type { Problem } from '../errors/problem.ts';
import type { Change, TerminationFacts } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { hasEnded, readAll, readStat } from '../kernel/proc.ts';
import type { Handle, Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Parking } from '../waits/parking.ts';
import { notPermitted, stillThere } from './refusals.ts';
import { isGone, type Signals } from './signals.ts';

const { SIGTERM, SIGCONT, SIGKILL } = constants.signals;

/** How long a process may take to end once it was killed. */
const STUCK_MS = 5000;

/** How long a caller waits for the others where a process may not be signalled. */
const REFUSED_MS = 5000;

/** For the SIGKILL of the others, which comes at the same time. */
const ALLOWANCE_MS = 100;

/** How long a stop of the daemon waits beyond its grace for what was killed. */
const LAST_WAIT_MS = 1000;

/** How often a group without its leader is looked at. */
const SHORTEST_LOOK_MS = 100;
const LONGEST_LOOK_MS = 60_000;

/** The longest timer of Node.js. */
const LONGEST_MS = 2 ** 31 - 1;

/** How many entries of processes that nobody holds are looked at whenever another one comes. */
const SWEEP = 4;

/** A process on its way to its end. */
interface Termination extends TerminationFacts {
  /** Of the SIGKILL; after it, of the verdict. */
  deadline: Deadline;
  isKilled: boolean;
  /** Once the leader of a group has ended: of the next look whether its group lives. */
  look: Deadline | null;
  /** Why it has not ended, once that is decided. */
  verdict: ((handle: Handle) => Problem) | null;
}

export interface TerminationParts {
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  signals: Signals;
  parking: Parking;
  deadlines: Deadlines;
}

/**
 * Ends processes: SIGTERM, SIGCONT (a stopped process takes no SIGTERM), and SIGKILL after the grace, all to the group of a child that
 * leads one, even if the child itself has ended by then.
 *
 * The SIGKILL is promised: it is one deadline for each process, written down, and independent of the caller, of the handles and of this
 * image of the daemon. It takes no descriptor; a process that nobody holds is opened again by its pid, and recognised by its inode.
 */
export class Terminations {
  readonly #parts: TerminationParts;
  readonly #byPid = new Map<number, Termination>();

  constructor(parts: TerminationParts) {
    this.#parts = parts;
    parts.journal.addSource(() =>
      this.#byPid
        .values()
        .filter(({ isKilled }) => !isKilled)
        .map(written),
    );
    parts.reaper.onEnded((process) => this.#ended(process));
    parts.reaper.onOrphan((pid, reaped) => this.#keepGroupOf(pid, reaped));
  }

  get size(): number {
    return this.#byPid.size;
  }

  /** Takes up what an earlier daemon has promised, for what still is the process that was meant. */
  resume(): void {
    const { journal, table } = this.#parts;
    for (const facts of journal.queries.terminations()) {
      const target = this.#targetOf(facts);
      if (target === null) journal.commit([{ write: 'terminated', pid: facts.pid }]);
      else {
        const termination = this.#schedule(facts);
        if (table.groups.get({ id: facts.process }) !== undefined) this.#lookAtGroup(termination, SHORTEST_LOOK_MS);
      }
      target?.release();
    }
  }

  /**
   * Terminates the process of a handle. The SIGKILL comes even if the caller goes away.
   * @param graceMs milliseconds; a deadline that is set already is moved to an earlier time, never to a later one
   * @returns once it has ended; `aborted` if the caller disconnected before that
   * @throws {Problem} EPERM where a process may not be signalled; ETIMEDOUT where it does not end; EDQUOT; ESHUTDOWN
   */
  async terminate(handle: Handle, graceMs: number, caller: Caller): Promise<'ended' | 'aborted'> {
    const { process } = handle;
    const { parking } = this.#parts;
    // A caller that is refused has changed nothing.
    if (process.ending === null) caller.client?.requireRoom('parkedWaits');
    const termination = this.#begin(handle, graceMs);
    const look = (): 'ended' | null => {
      if (process.ending !== null) return 'ended';
      if (termination?.verdict) throw termination.verdict(handle);
      return null;
    };
    const refused = termination === null ? [] : refusedMembers(termination);
    // A leader that takes no signal never ends: no use in waiting for it longer than for the others.
    const timeoutMs = refused.includes(process.pid) ? Math.min(graceMs, REFUSED_MS) + ALLOWANCE_MS : undefined;
    const result = look() ?? (await parking.park([handle], look, { timeoutMs, caller }));
    if (result === 'aborted') return 'aborted';
    const left = refused.filter((pid) => !isOver(pid));
    if (left.length > 0) throw notPermitted(left, handle);
    return 'ended';
  }

  /**
   * Terminates every child of the daemon on which there is a handle, all at once. Their ends are written and told as any other.
   * @param graceMs milliseconds between SIGTERM and SIGKILL
   * @returns how many there were, and the pids of those that have not ended soon after the SIGKILL
   */
  async terminateChildren(graceMs: number): Promise<{ count: number; left: number[] }> {
    const { table } = this.#parts;
    const caller = { client: null, abortSignal: AbortSignal.timeout(Math.min(graceMs + LAST_WAIT_MS, LONGEST_MS)) };
    const handles = [...table.values()].flatMap(({ relation, ending, handles: [handle] }) =>
      relation === 'child' && ending === null && handle !== undefined ? [handle] : [],
    );
    await Promise.allSettled(handles.map((handle) => this.terminate(handle, graceMs, caller)));
    const left = handles.map(({ process }) => process).filter(({ ending }) => ending === null);
    return { count: handles.length, left: left.map(({ pid }) => pid) };
  }

  /** @returns `null` where nothing is left to kill */
  #begin(handle: Handle, graceMs: number): Termination | null {
    const { signals, journal, deadlines } = this.#parts;
    const { process } = handle;
    const target = signals.reach(handle);
    if (target === null) return null;
    const { scope } = target;
    try {
      signals.send(handle, SIGTERM, scope);
      signals.send(handle, SIGCONT, scope);
    } catch (error) {
      if (!isGone(error)) throw error;
      if (process.ending !== null) return null;
    }
    const killAt = boottimeMs() + graceMs;
    const { pid, inode } = process;
    const known = this.#byPid.get(pid);
    if (known !== undefined && known.inode === inode && !known.isKilled) {
      known.process = process.id;
      if (killAt < known.killAt) {
        known.killAt = killAt;
        deadlines.move(known.deadline, killAt);
        journal.commit([written(known)]);
      }
      return known;
    }
    if (known !== undefined) this.#giveUp(known);
    this.#sweep();
    const startTicks = readStat(pid)?.startTicks ?? null;
    const termination = this.#schedule({ pid, inode, startTicks, process: process.id, scope, killAt });
    journal.commit([written(termination)]);
    return termination;
  }

  #schedule(facts: TerminationFacts): Termination {
    const { pid, killAt } = facts;
    const deadline = this.#parts.deadlines.add(killAt, () => this.#kill(pid));
    const termination = { ...facts, isKilled: false, look: null, verdict: null, deadline };
    this.#byPid.set(pid, termination);
    this.#parts.table.groups.want(pid);
    return termination;
  }

  #kill(pid: number): void {
    const { journal, deadlines } = this.#parts;
    const termination = this.#byPid.get(pid)!;
    const target = this.#targetOf(termination);
    journal.commit([{ write: 'terminated', pid }]);
    termination.isKilled = true;
    if (target === null) {
      this.#giveUp(termination);
      return;
    }
    let isRefused = false;
    this.#parts.signals.killing(termination);
    try {
      target.pidfd.signal(SIGKILL, termination.scope);
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'EPERM')) throw error;
      isRefused = isErrno(error, 'EPERM');
    } finally {
      target.release();
    }
    const { process } = target;
    if (process === null || process.ending !== null) this.#giveUp(termination);
    else
      termination.deadline = deadlines.add(isRefused ? 0 : boottimeMs() + STUCK_MS, () =>
        this.#judge(termination, process),
      );
  }

  /** It was killed, and has not ended: those who wait learn why. */
  #judge(termination: Termination, process: Process): void {
    const refused = refusedMembers(termination, true);
    termination.verdict = (handle) =>
      refused.length > 0 ? notPermitted(refused, handle) : stillThere(process.pid, handle);
    this.#giveUp(termination);
    process.changed();
  }

  #giveUp(termination: Termination): void {
    const { deadlines, journal, table } = this.#parts;
    if (!termination.isKilled) journal.commit([{ write: 'terminated', pid: termination.pid }]);
    deadlines.cancel(termination.deadline);
    if (termination.look !== null) deadlines.cancel(termination.look);
    if (this.#byPid.get(termination.pid) !== termination) return;
    this.#byPid.delete(termination.pid);
    table.groups.unwant({ id: termination.process, pid: termination.pid });
  }

  /** The promise ends with the process, or with the group that it led. */
  #ended(process: Process): void {
    const termination = this.#byPid.get(process.pid);
    if (termination === undefined || termination.inode !== process.inode) return;
    termination.process = process.id;
    this.#lookAtGroup(termination, SHORTEST_LOOK_MS);
  }

  /** The kernel does not report the end of a process group. */
  #lookAtGroup(termination: Termination, nextMs: number): void {
    const { deadlines } = this.#parts;
    if (termination.look !== null) deadlines.cancel(termination.look);
    if (!this.#leadsStill(termination)) this.#giveUp(termination);
    else {
      const again = (): void => this.#lookAtGroup(termination, Math.min(nextMs * 2, LONGEST_LOOK_MS));
      termination.look = deadlines.add(boottimeMs() + nextMs, again);
    }
  }

  /** A child that nobody holds has ended, and is about to be reaped: after that its group could no longer be reached. */
  #keepGroupOf(pid: number, reaped: DisposableStack): void {
    const termination = this.#byPid.get(pid);
    if (termination === undefined) return;
    const pidfd = termination.scope === 'group' ? openIfThere(pid) : null;
    reaped.defer(() => {
      const { groups } = this.#parts.table;
      if (pidfd !== null) groups.offer({ id: termination.process, pid, handles: new Set() }, pidfd);
      this.#lookAtGroup(termination, SHORTEST_LOOK_MS);
    });
  }

  #leadsStill({ scope, process }: TerminationFacts): boolean {
    return scope === 'group' && this.#parts.table.groups.get({ id: process })?.leadsGroup() === true;
  }

  /** Looks at the oldest few: a foreign process that nobody holds ends without our knowing. */
  #sweep(): void {
    for (const termination of [...this.#byPid.values().take(SWEEP)]) {
      const target = this.#targetOf(termination);
      target?.release();
      if (target === null) this.#giveUp(termination);
      else {
        this.#byPid.delete(termination.pid);
        this.#byPid.set(termination.pid, termination);
      }
    }
  }

  /** Finds the process that was meant, or the group that it led. @returns `null` where both have ended */
  #targetOf({ pid, inode, startTicks, process: id }: TerminationFacts): Target | null {
    const { table } = this.#parts;
    const held = table.get(pid);
    const pidfd = held?.inode === inode ? [...held.descriptions][0]?.pidfd : undefined;
    if (held !== undefined && pidfd) return { pidfd, process: held, release: () => {} };
    const kept = table.groups.get({ id });
    if (kept !== undefined) return { pidfd: kept, process: null, release: () => {} };
    const opened = openIfThere(pid);
    if (opened === null) return null;
    const isMeant = inode === null ? readStat(pid)?.startTicks === startTicks : opened.inode === inode;
    if (isMeant) return { pidfd: opened, process: null, release: () => opened.close() };
    opened.close();
    return null;
  }
}

interface Target {
  pidfd: Pidfd;
  /** `null` where nobody holds it, or where it has been reaped. */
  process: Process | null;
  release(): void;
}

/** As it is now: a later change is written by itself. */
function written({ pid, inode, startTicks, process, scope, killAt }: Termination): Change {
  return { write: 'termination', termination: { pid, inode, startTicks, process, scope, killAt } };
}

function isOver(pid: number): boolean {
  const stat = readStat(pid);
  return stat === null || hasEnded(stat);
}

function openIfThere(pid: number): Pidfd | null {
  try {
    return Pidfd.open(pid);
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EINVAL', 'ENOENT', 'EMFILE', 'ENFILE')) return null;
    throw error;
  }
}

/** CAP_KILL in include/uapi/linux/capability.h. */
const CAP_KILL = 5n;

function maySignalAll(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return ((BigInt(`0x${effective ?? '0'}`) >> CAP_KILL) & 1n) === 1n;
}

/**
 * Finds the members of a group that may not be signalled: the kernel reports success for a group if one member could be.
 * @param always also where the daemon should have the right to signal all
 */
function refusedMembers({ pid, scope }: TerminationFacts, always = false): number[] {
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
