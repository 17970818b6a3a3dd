import type { Timeout, TimeoutChange } from '../../schemas/lifetime.ts';
import { GRACE_MS } from '../../schemas/vocabulary.ts';
import type { Deadline, Deadlines } from '../deadlines/deadlines.ts';
import { Problem } from '../errors/problem.ts';
import type { Change } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { readStat, startMs } from '../kernel/proc.ts';
import type { Overdue } from '../model/lifetime.ts';
import type { Handle, Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import { isOver } from './refused-members.ts';
import { targetOf } from './termination-target.ts';
import type { Terminations } from './terminations.ts';

/** How many lifetimes are checked whenever another one begins: the end of a foreign process without a handle is not reported. */
const SWEEP = 4;

type Mark = keyof Overdue;

/** A process whose lifetime is bounded. */
interface Bounded {
  process: Process;
  timeout: Deadline | null;
  lease: Deadline | null;
  /** What holds the lease, which does not run meanwhile; `null` for nothing. */
  holders: Set<LeaseHolder> | null;
}

/** What holds leases for as long as it exists: a WebSocket. */
export class LeaseHolder {
  readonly held = new Set<Bounded>();
}

export interface LifetimesParts {
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  terminations: Terminations;
  deadlines: Deadlines;
}

/**
 * Ends processes at their deadlines: a timeout, which counts from the start, and a lease, which its owner renews or holds.
 *
 * The bounds are stored with the process, and are independent of its handles and of this image of the daemon. A timeout that passes while
 * the daemon is away is enforced at its next start. A lease starts anew then, because its owner could not renew it meanwhile.
 */
export class Lifetimes {
  readonly #parts: LifetimesParts;
  readonly #byPid = new Map<number, Bounded>();
  /** How many processes were ended by each kind of deadline. */
  readonly counts: Record<Mark, number> = { timedOut: 0, leaseExpired: 0 };

  constructor(parts: LifetimesParts) {
    this.#parts = parts;
    parts.journal.addSource(() =>
      this.#byPid
        .values()
        .filter(({ process }) => process.handles.size === 0)
        .map(({ process }): Change => ({ write: 'process', process })),
    );
    parts.reaper.onEnded((process) => this.#ended(process));
    parts.reaper.onOrphan((pid, reaped) => reaped.defer(() => this.#reaped(pid)));
  }

  get size(): number {
    return this.#byPid.size;
  }

  /** Takes over the lifetimes of an earlier daemon. */
  resume(): void {
    const { journal, table } = this.#parts;
    for (const { process: stored, boot } of journal.queries.limited()) {
      const live = table.get(stored.pid);
      const process = live?.id === stored.id ? live : stored;
      if (boot === journal.bootId && isThere(process, table)) this.#bound(process, boottimeMs());
      else journal.commit([{ write: 'unheld end', process }]);
    }
  }

  /** Begins the lifetime of a spawned process, if that is bounded. */
  begin(process: Process): void {
    if (process.lifetime === null || process.ending !== null) return;
    this.#sweep();
    this.#bound(process, process.lifetime.startedAt);
  }

  /** @param leasedAt when the lease begins, in milliseconds on CLOCK_BOOTTIME */
  #bound(process: Process, leasedAt: number): Bounded {
    const bounded: Bounded = { process, timeout: null, lease: null, holders: null };
    this.#byPid.set(process.pid, bounded);
    this.#armTimeout(bounded);
    const lease = process.lifetime?.lease;
    if (lease && !process.overdue.leaseExpired) this.#armLease(bounded, leasedAt + lease.ttlMs);
    return bounded;
  }

  #armTimeout(bounded: Bounded): void {
    const { deadlines } = this.#parts;
    const { lifetime, overdue } = bounded.process;
    if (bounded.timeout !== null) deadlines.cancel(bounded.timeout);
    bounded.timeout = null;
    if (!lifetime?.timeout || overdue.timedOut) return;
    bounded.timeout = deadlines.add(lifetime.startedAt + lifetime.timeout.afterMs, () =>
      this.#expire(bounded, 'timedOut'),
    );
  }

  #armLease(bounded: Bounded, at: number): void {
    const { deadlines } = this.#parts;
    bounded.process.leaseExpiresAt = at;
    if (bounded.lease === null) bounded.lease = deadlines.add(at, () => this.#expire(bounded, 'leaseExpired'));
    else deadlines.move(bounded.lease, at);
  }

  #disarmLease(bounded: Bounded): void {
    if (bounded.lease !== null) this.#parts.deadlines.cancel(bounded.lease);
    bounded.lease = null;
    bounded.process.leaseExpiresAt = null;
  }

  /**
   * Returns the timeout that a process would have after a change.
   * @throws {Problem} EINVAL if the handle did not spawn it; ESRCH if it has ended, or is being ended because its timeout has passed
   */
  changed(handle: Handle, change: TimeoutChange | null): Timeout | null {
    requireSpawned(handle, 'timeout');
    const { process } = handle;
    const bounded = this.#byPid.get(process.pid);
    if (bounded?.process === process && bounded.timeout !== null && bounded.timeout.at <= boottimeMs())
      this.#expire(bounded, 'timedOut');
    if (process.ending !== null) throw tooLate(handle, 'has ended');
    if (process.overdue.timedOut) throw tooLate(handle, 'is being ended, because its timeout has passed');
    if (change === null) return null;
    const { afterMs, graceMs = process.lifetime?.timeout?.graceMs ?? GRACE_MS } = change;
    return { afterMs, graceMs };
  }

  /** Sets, moves or removes a timeout, which {@link changed} has returned. */
  setTimeout({ process }: Handle, timeout: Timeout | null): void {
    if (timeout === null && process.lifetime === null) return;
    process.lifetime ??= { ...startOf(process), timeout: null, lease: null };
    const { lifetime } = process;
    lifetime.timeout = timeout;
    const bounded = this.#byPid.get(process.pid) ?? this.#bound(process, boottimeMs());
    this.#armTimeout(bounded);
    if (lifetime.timeout === null && lifetime.lease === null) {
      process.lifetime = null;
      this.#byPid.delete(process.pid);
    }
    this.#parts.journal.commit([{ write: 'process', process }]);
  }

  /**
   * Renews a lease: it lasts for its whole time from now on.
   * @returns when it expires, in milliseconds on CLOCK_BOOTTIME
   * @throws {Problem} EINVAL for a process without a lease; ESRCH if it has ended, or its lease has expired
   */
  renew(handle: Handle): number {
    const bounded = this.#leased(handle);
    const at = boottimeMs() + handle.process.lifetime!.lease!.ttlMs;
    // A held lease cannot expire before that either.
    if (bounded.holders === null) this.#armLease(bounded, at);
    return at;
  }

  /** Holds a lease until it is released. @throws {Problem} as {@link renew} */
  hold(handle: Handle, holder: LeaseHolder): void {
    const bounded = this.#leased(handle);
    this.#disarmLease(bounded);
    bounded.holders ??= new Set();
    bounded.holders.add(holder);
    holder.held.add(bounded);
  }

  /** Releases one lease, or all that a holder holds. The last release starts the lease anew. */
  release(holder: LeaseHolder, process?: Process): void {
    const held = process === undefined ? [...holder.held] : [...holder.held].filter((each) => each.process === process);
    for (const bounded of held) {
      holder.held.delete(bounded);
      bounded.holders!.delete(holder);
      if (bounded.holders!.size > 0) continue;
      bounded.holders = null;
      const { lifetime } = bounded.process;
      this.#armLease(bounded, boottimeMs() + lifetime!.lease!.ttlMs);
    }
  }

  /** @throws {Problem} as {@link renew} */
  #leased(handle: Handle): Bounded {
    requireSpawned(handle, 'lease');
    const { process } = handle;
    if (!process.lifetime?.lease) {
      const detail = `The process of handle ${handle.id} has no lease: give it one when you spawn it.`;
      throw new Problem('EINVAL', detail, { handle: handle.id });
    }
    const bounded = this.#byPid.get(process.pid);
    if (process.leaseExpiresAt !== null && process.leaseExpiresAt <= boottimeMs() && bounded?.process === process)
      this.#expire(bounded, 'leaseExpired');
    if (process.ending !== null || bounded?.process !== process) throw tooLate(handle, 'has ended');
    if (process.overdue.leaseExpired) throw tooLate(handle, 'is being ended, because its lease has expired');
    return bounded;
  }

  #expire(bounded: Bounded, mark: Mark): void {
    const { table, reaper, terminations } = this.#parts;
    const { process } = bounded;
    if (mark === 'timedOut') bounded.timeout = null;
    else this.#disarmLease(bounded);
    const held = table.get(process.pid);
    // Whoever opened it again after its last handle was closed has another object of the same process.
    const isSame =
      held !== undefined && (held.id === process.id || (held.inode !== null && held.inode === process.inode));
    const same = isSame ? held : process;
    // It may have ended by itself, and that was not reported yet.
    if (same === held && same.relation === 'child') reaper.recordExit(same);
    if (this.#byPid.get(process.pid) !== bounded || same.ending !== null || isOver(process.pid)) return;
    const { startTicks, timeout, lease } = process.lifetime!;
    const { graceMs } = (mark === 'timedOut' ? timeout : lease)!;
    const changes = [...new Set([process, same])].map((each): Change => {
      each.overdue = { ...each.overdue, [mark]: true };
      return { write: 'process', process: each };
    });
    if (terminations.terminateSpawned(process, startTicks, graceMs, changes)) this.counts[mark] += 1;
    else this.#reaped(process.pid);
  }

  /** Forgets a process that has ended, in whichever object it is known. */
  #ended(process: Process): void {
    const bounded = this.#byPid.get(process.pid);
    if (bounded === undefined || bounded.process.inode !== process.inode) return;
    this.#forget(bounded);
  }

  /** Forgets a process that has been reaped without a handle. */
  #reaped(pid: number): void {
    const bounded = this.#byPid.get(pid);
    if (bounded !== undefined) this.#forget(bounded);
  }

  #forget(bounded: Bounded): void {
    const { process, timeout, holders } = bounded;
    this.#byPid.delete(process.pid);
    if (timeout !== null) this.#parts.deadlines.cancel(timeout);
    this.#disarmLease(bounded);
    for (const holder of holders ?? []) holder.held.delete(bounded);
    if (process.handles.size === 0) this.#parts.journal.commit([{ write: 'unheld end', process }]);
  }

  /** Checks the oldest few. */
  #sweep(): void {
    for (const bounded of [...this.#byPid.values().take(SWEEP)]) {
      const { process } = bounded;
      this.#byPid.delete(process.pid);
      this.#byPid.set(process.pid, bounded);
      if (process.handles.size === 0 && !isThere(process, this.#parts.table)) this.#forget(bounded);
    }
  }
}

/** Reports whether the process itself still exists, be it a zombie. */
function isThere({ id, pid, inode, lifetime, ending }: Process, table: ProcessTable): boolean {
  if (ending !== null) return false;
  const target = targetOf({ pid, inode, startTicks: lifetime!.startTicks, process: id }, table);
  target?.release();
  return target !== null;
}

/** Returns the start of a process that was spawned without bounds. */
function startOf({ pid, inode }: Process): { startedAt: number; startTicks: number | null } {
  const stat = readStat(pid);
  if (stat === null) return { startedAt: boottimeMs(), startTicks: null };
  return { startedAt: startMs(stat), startTicks: inode === null ? stat.startTicks : null };
}

/** The description that a spawn makes has the number of its process. Only its handles control how long that may live. */
function requireSpawned({ id, process, description }: Handle, what: 'timeout' | 'lease'): void {
  if (description.id === process.id) return;
  const detail = `Handle ${id} did not spawn its process: only a handle that did, or its dup, controls the ${what}.`;
  throw new Problem('EINVAL', detail, { handle: id });
}

function tooLate({ id }: Handle, how: string): Problem {
  return new Problem('ESRCH', `The process of handle ${id} ${how}: wait for it with waitid or poll.`, { handle: id });
}
