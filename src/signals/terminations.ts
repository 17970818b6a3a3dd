import { constants } from 'node:os';
import type { Caller } from '../clients/caller.ts';
import type { Deadlines } from '../deadlines/deadlines.ts';
import type { Change, TerminationFacts } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { isErrno } from '../kernel/errno.ts';
import { readStat } from '../kernel/proc.ts';
import type { Handle, Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Parking } from '../waits/parking.ts';
import { endsByHangUp } from './hang-up.ts';
import { hasNotEnded, notPermitted } from './refusals.ts';
import { isOver, refusedMembers } from './refused-members.ts';
import { meansEnded, type Signals } from './signals.ts';
import { type Termination, written } from './termination.ts';
import { openIfThere, targetOf } from './termination-target.ts';

const { SIGTERM, SIGHUP, SIGCONT, SIGKILL } = constants.signals;

/** How long a killed process may take to end, in milliseconds, before the caller is answered that it does not. */
const STUCK_MS = 5000;

/** How long a caller waits for the other members of a group if one of them may not be signalled, in milliseconds. */
const REFUSED_MS = 5000;

/** Added to that, because the SIGKILL of the others is sent at the same time. */
const ALLOWANCE_MS = 100;

/** How often a leaderless group is checked, in milliseconds: the interval doubles with each check. */
const SHORTEST_CHECK_MS = 100;
const LONGEST_CHECK_MS = 60_000;

/** How many terminations are checked whenever another one begins: the end of a foreign process without a handle is not reported. */
const SWEEP = 4;

export interface TerminationParts {
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  signals: Signals;
  parking: Parking;
  deadlines: Deadlines;
}

/**
 * Ends processes: SIGTERM, SIGCONT (a stopped process does not handle SIGTERM), and SIGKILL after the grace. A child that leads a group
 * has them sent to the group, even if the child itself has ended by then. An interactive shell gets SIGHUP too.
 *
 * The SIGKILL is a promise: one deadline for each process, written to the journal, and independent of the caller, of the handles and of
 * this image of the daemon. It holds no descriptor. A process without a handle is opened again by its pid, and recognised by its inode.
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

  /** Takes over the promises of an earlier daemon, for processes that still exist. */
  resume(): void {
    const { journal, table } = this.#parts;
    for (const facts of journal.queries.terminations()) {
      const target = targetOf(facts, table);
      if (target === null) journal.commit([{ write: 'terminated', pid: facts.pid }]);
      else {
        const termination = this.#schedule(facts);
        if (table.groups.get({ id: facts.process }) !== undefined) this.#checkGroup(termination, SHORTEST_CHECK_MS);
      }
      target?.release();
    }
  }

  /**
   * Terminates the process of a handle. The SIGKILL is sent even if the caller disconnects.
   * @param graceMs milliseconds; moves a deadline that is set already to an earlier time, never to a later one
   * @returns once it has ended; `aborted` if the caller disconnected before that
   * @throws {Problem} EPERM if a process may not be signalled; ETIMEDOUT if it does not end; EDQUOT; ESHUTDOWN
   */
  async terminate(handle: Handle, graceMs: number, caller: Caller): Promise<'ended' | 'aborted'> {
    const { process } = handle;
    const { parking } = this.#parts;
    // Checked first, so that a refused caller has changed nothing.
    if (process.ending === null) caller.client?.requireRoom('parkedWaits');
    const termination = this.#begin(handle, graceMs);
    const check = (): 'ended' | null => {
      if (process.ending !== null) return 'ended';
      if (termination?.verdict) throw termination.verdict(handle);
      return null;
    };
    const refused = termination === null ? [] : refusedMembers(termination);
    // A leader that may not be signalled does not end, so there is no use in waiting for it longer than for the others.
    const timeoutMs = refused.includes(process.pid) ? Math.min(graceMs, REFUSED_MS) + ALLOWANCE_MS : undefined;
    const result = check() ?? (await parking.park([handle], check, { timeoutMs, caller }));
    if (result === 'aborted') return 'aborted';
    const left = refused.filter((pid) => !isOver(pid));
    if (left.length > 0) throw notPermitted(left, handle);
    return 'ended';
  }

  /**
   * Terminates a process that was spawned, whether it still has a handle or not, and answers nobody.
   * @param changes are written together with the deadline of the SIGKILL
   * @returns false if it has ended
   */
  terminateSpawned(
    { id, pid, inode }: Process,
    startTicks: number | null,
    graceMs: number,
    changes: Change[],
  ): boolean {
    const { table, signals } = this.#parts;
    const target = targetOf({ pid, inode, startTicks, process: id }, table);
    if (target === null) return false;
    const scope = signals.scopeOf(target.pidfd);
    try {
      target.pidfd.signal(SIGTERM, scope);
      if (endsByHangUp(pid)) target.pidfd.signal(SIGHUP);
      target.pidfd.signal(SIGCONT, scope);
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'EPERM')) throw error;
    } finally {
      target.release();
    }
    this.#promise({ pid, inode, process: id, scope }, graceMs, changes);
    return true;
  }

  /** @returns `null` if nothing is left to kill */
  #begin(handle: Handle, graceMs: number): Termination | null {
    const { signals } = this.#parts;
    const { process } = handle;
    const target = signals.reach(handle);
    if (target === null) return null;
    const { scope } = target;
    try {
      signals.send(handle, SIGTERM, scope);
      if (endsByHangUp(process.pid)) signals.send(handle, SIGHUP, 'process');
      signals.send(handle, SIGCONT, scope);
    } catch (error) {
      if (!meansEnded(error)) throw error;
      if (process.ending !== null) return null;
    }
    return this.#promise({ pid: process.pid, inode: process.inode, process: process.id, scope }, graceMs);
  }

  /**
   * Sets the deadline of the SIGKILL, or moves it to an earlier time.
   * @param changes are written together with it
   */
  #promise(
    { pid, inode, process, scope }: Omit<TerminationFacts, 'killAt' | 'startTicks'>,
    graceMs: number,
    changes: Change[] = [],
  ): Termination {
    const { journal, deadlines } = this.#parts;
    const killAt = boottimeMs() + graceMs;
    const known = this.#byPid.get(pid);
    if (known !== undefined && known.inode === inode && !known.isKilled) {
      known.process = process;
      if (killAt < known.killAt) {
        known.killAt = killAt;
        deadlines.move(known.deadline, killAt);
        changes.push(written(known));
      }
      if (changes.length > 0) journal.commit(changes);
      return known;
    }
    if (known !== undefined) this.#giveUp(known);
    this.#sweep();
    const startTicks = readStat(pid)?.startTicks ?? null;
    const termination = this.#schedule({ pid, inode, startTicks, process, scope, killAt });
    journal.commit([...changes, written(termination)]);
    return termination;
  }

  #schedule(facts: TerminationFacts): Termination {
    const { pid, killAt } = facts;
    const deadline = this.#parts.deadlines.add(killAt, () => this.#kill(pid));
    const termination = { ...facts, isKilled: false, nextCheck: null, verdict: null, deadline };
    this.#byPid.set(pid, termination);
    this.#parts.table.groups.want(pid);
    return termination;
  }

  #kill(pid: number): void {
    const { journal, table, deadlines } = this.#parts;
    const termination = this.#byPid.get(pid)!;
    const target = targetOf(termination, table);
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

  /** Decides why a killed process has not ended, and tells the parked callers. */
  #judge(termination: Termination, process: Process): void {
    const refused = refusedMembers(termination, true);
    termination.verdict = (handle) =>
      refused.length > 0 ? notPermitted(refused, handle) : hasNotEnded(process.pid, handle);
    this.#giveUp(termination);
    process.changed();
  }

  #giveUp(termination: Termination): void {
    const { deadlines, journal, table } = this.#parts;
    if (!termination.isKilled) journal.commit([{ write: 'terminated', pid: termination.pid }]);
    deadlines.cancel(termination.deadline);
    if (termination.nextCheck !== null) deadlines.cancel(termination.nextCheck);
    if (this.#byPid.get(termination.pid) !== termination) return;
    this.#byPid.delete(termination.pid);
    table.groups.unwant({ id: termination.process, pid: termination.pid });
  }

  /** Ends a promise with its process, or with the group that it led. */
  #ended(process: Process): void {
    const termination = this.#byPid.get(process.pid);
    if (termination === undefined || termination.inode !== process.inode) return;
    termination.process = process.id;
    this.#checkGroup(termination, SHORTEST_CHECK_MS);
  }

  /** The kernel does not report the end of a process group. */
  #checkGroup(termination: Termination, nextMs: number): void {
    const { deadlines } = this.#parts;
    if (termination.nextCheck !== null) deadlines.cancel(termination.nextCheck);
    if (!this.#leadsStill(termination)) this.#giveUp(termination);
    else {
      const again = (): void => this.#checkGroup(termination, Math.min(nextMs * 2, LONGEST_CHECK_MS));
      termination.nextCheck = deadlines.add(boottimeMs() + nextMs, again);
    }
  }

  /** Opens an orphan that is about to be reaped, since its group can only be reached through its pidfd after that. */
  #keepGroupOf(pid: number, reaped: DisposableStack): void {
    const termination = this.#byPid.get(pid);
    if (termination === undefined) return;
    const pidfd = termination.scope === 'group' ? openIfThere(pid) : null;
    reaped.defer(() => {
      const { groups } = this.#parts.table;
      if (pidfd !== null) groups.offer({ id: termination.process, pid, handles: new Set() }, pidfd);
      this.#checkGroup(termination, SHORTEST_CHECK_MS);
    });
  }

  #leadsStill({ scope, process }: TerminationFacts): boolean {
    return scope === 'group' && this.#parts.table.groups.get({ id: process })?.leadsGroup() === true;
  }

  /** Checks the oldest few. */
  #sweep(): void {
    for (const termination of [...this.#byPid.values().take(SWEEP)]) {
      const target = targetOf(termination, this.#parts.table);
      target?.release();
      if (target === null) this.#giveUp(termination);
      else {
        this.#byPid.delete(termination.pid);
        this.#byPid.set(termination.pid, termination);
      }
    }
  }
}
