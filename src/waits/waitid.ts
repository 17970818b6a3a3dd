import type { Outcome, Retry, StopEvent } from '../../schemas/common.ts';
import type { Filled } from '../../schemas/filled.ts';
import type { WaitOption } from '../../schemas/vocabulary.ts';
import type { WaitidResult } from '../../schemas/waits.ts';
import type { Caller } from '../clients/caller.ts';
import { Problem } from '../errors/problem.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';
import type { Change } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';
import { isEnd, type WaitEvent, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED } from '../kernel/waitid.ts';
import { outcomeOf } from '../model/outcome.ts';
import type { Handle, OpenDescription } from '../model/process.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Parking, Unparked } from './parking.ts';

const bits: Record<WaitOption, number> = { WEXITED, WSTOPPED, WCONTINUED, WNOHANG, WNOWAIT };

/** When a nonblocking caller may retry, in milliseconds. */
const RETRY_AFTER_MS = 250;

export interface WaitRequest {
  options: readonly WaitOption[];
  timeoutMs: number | undefined;
  caller: Caller;
  /** Of a request with an idempotency key. The answer is written together with what it collects, so that a retry gets it again. */
  claim?: Claim | undefined;
}

export interface WaitResult extends Partial<WaitEvent> {
  outcome: Outcome | StopEvent | null;
}

export type WaitAnswer = WaitResult | 'nothing' | 'again' | 'timed out' | 'aborted';

export interface WaitParts {
  journal: Journal;
  reaper: Reaper;
  parking: Parking;
  /** Whether O_NONBLOCK on a pidfd makes waitid fail with EAGAIN (5.10). */
  nonblocking: boolean;
}

/** waitid(2) for clients. Each sees a child as if it were the only parent. */
export class Waits {
  readonly #parts: WaitParts;

  constructor(parts: WaitParts) {
    this.#parts = parts;
  }

  /**
   * Does one waitid on one handle, with options that {@link requireEvent} has accepted.
   * @returns the event; `nothing` with WNOHANG, `again` on a nonblocking handle, if no event is available; a promise if it waits
   * @throws {Problem} ECHILD, ESHUTDOWN
   */
  waitid(
    handle: Handle,
    { options, timeoutMs, caller, claim }: WaitRequest,
  ): Exclude<WaitAnswer, Unparked> | Promise<WaitAnswer> {
    const bits = bitsOf(options);
    // Read first: the check may find that the process has ended, and then its descriptor is closed.
    const { nonblocking } = handle.description;
    this.#ask(handle, bits);
    const found = this.#check(handle, bits, claim);
    if (found !== null) return found;
    if ((bits & WNOHANG) !== 0) return 'nothing';
    if (nonblocking) return 'again';
    return this.#parts.parking.park([handle], () => this.#check(handle, bits, claim), { timeoutMs, caller });
  }

  /**
   * Collects an event that {@link waitid} has found with WNOWAIT. It does not ask the kernel again, so it finds no other event.
   * @returns `null` if the event has been overtaken by another that was not asked for
   * @throws {Problem} ECHILD if another call has collected the status meanwhile
   */
  take(handle: Handle, { options, claim }: Pick<WaitRequest, 'options' | 'claim'>): WaitResult | null {
    return this.#check(handle, bitsOf(options), claim);
  }

  /**
   * Makes the real call on the real descriptor with its real flag, so that the answer is true now. It only peeks, because an exit is
   * taken from the kernel once it is written, and served from the record.
   */
  #ask({ description, process }: Handle, bits: number): void {
    const { pidfd } = description;
    if (pidfd === null || process.ending !== null) return;
    if ((bits & (WSTOPPED | WCONTINUED)) !== 0) this.#parts.reaper.drainStops();
    const answer = askKernel(description, (bits & WNOHANG) !== 0 || !this.#parts.nonblocking);
    if (answer === 'ended') this.#parts.reaper.recordExit(process);
    else if (answer === 'trapped') this.#parts.reaper.drainStops();
    else if (answer === 'running') this.#parts.reaper.adopt(process);
  }

  /** Decides from what is known as the kernel's wait_consider_task() does: an exit, then a stop, then a continue. */
  #check(handle: Handle, bits: number, claim?: Claim): WaitResult | null {
    const { process, client } = handle;
    if (process.relation === 'foreign') throw this.#noChild(handle, 'it is not a child of the daemon');
    if (process.ending !== null) return this.#collect(handle, bits, claim);
    const event = process.stops.unread(client);
    if (event === null) return null;
    if ((bits & reportedWith(event)) === 0) return null;
    const result = { ...event, outcome: outcomeOf(event.siginfo) };
    if ((bits & WNOWAIT) !== 0) return result;
    process.stops.markRead(client);
    if (claim !== undefined) this.#parts.journal.commit([keep(claim, handle, result)]);
    return result;
  }

  #collect(handle: Handle, bits: number, claim?: Claim): WaitResult {
    const { process, client } = handle;
    const { journal } = this.#parts;
    const { siginfo, rusage, outcome } = process.ending!;
    if ((bits & WEXITED) === 0) throw this.#noChild(handle, 'it has ended, and WEXITED was not asked for');
    if (siginfo === null) throw this.#noChild(handle, 'it ended while the daemon was not its parent');
    if (journal.queries.isCollected(process, client)) throw this.#noChild(handle, 'its status has been collected');
    const result = { siginfo, rusage: rusage!, outcome };
    if ((bits & WNOWAIT) === 0)
      journal.commit([{ write: 'collected', process, client }, ...(claim ? [keep(claim, handle, result)] : [])]);
    return result;
  }

  /** Returns the retry hint for a handle without an event. Its `since` is the head, so no event is missed. */
  retry(handle: Handle): Retry {
    return { afterMs: RETRY_AFTER_MS, events: `/v1/events?handle=${handle.id}&since=${this.#parts.journal.head}` };
  }

  /** Makes the problem that answers `again`. */
  again(handle: Handle): Problem {
    const retry = this.retry(handle);
    const detail = `Handle ${handle.id} is nonblocking and no child event is available yet. Retry after ${retry.afterMs} ms or subscribe to /v1/events.`;
    return new Problem('EAGAIN', detail, {
      syscall: 'waitid',
      handle: handle.id,
      retry,
    });
  }

  #noChild(handle: Handle, why: string): Problem {
    const detail = `There is nothing to wait for: ${why}. Read the handle for its outcome.`;
    return new Problem('ECHILD', detail, { syscall: 'waitid', handle: handle.id });
  }
}

/** What there is to report of a process. */
type Reported = Pick<WaitidResult, 'outcome'> & Partial<Pick<WaitidResult, 'siginfo' | 'rusage'>>;

/** Returns the answer of a wait, as it is sent and stored. */
export function bodyOf(handle: Handle, { siginfo, rusage, outcome }: Reported): Filled<WaitidResult> {
  return {
    handle: handle.id,
    siginfo: siginfo ?? null,
    outcome,
    rusage: rusage ?? null,
    timedOut: undefined,
    retry: undefined,
    output: undefined,
  };
}

/** The change that stores an answer. It is written with what the wait collects, so that a retry gets the answer again. */
function keep(claim: Claim, handle: Handle, result: WaitResult): Change {
  const answer = { status: 200, body: JSON.stringify(bodyOf(handle, result)) };
  return { write: 'key', key: claim.keep(handle.id, answer) };
}

function bitsOf(options: readonly WaitOption[]): number {
  return options.reduce((all, option) => all | bits[option], 0);
}

/**
 * Requires options that name an event. The kernel checks them before the descriptor, so this comes before the handle is looked up.
 * @throws {Problem} EINVAL
 */
export function requireEvent(options: readonly WaitOption[]): void {
  if ((bitsOf(options) & (WEXITED | WSTOPPED | WCONTINUED)) !== 0) return;
  const detail = 'The options name no event: give at least one of WEXITED, WSTOPPED and WCONTINUED.';
  throw new Problem('EINVAL', detail, { syscall: 'waitid' });
}

/** Returns the options that report a stop or a continue. The daemon is the tracer of a trapped child, and a tracer needs none. */
function reportedWith({ siginfo: { code } }: WaitEvent): number {
  if (code === 'CLD_TRAPPED') return WEXITED | WSTOPPED | WCONTINUED;
  return code === 'CLD_CONTINUED' ? WCONTINUED : WSTOPPED;
}

/** Peeks once for an exit, with the flag of the description. */
function askKernel(
  { pidfd, nonblocking }: OpenDescription,
  noHang: boolean,
): 'ended' | 'trapped' | 'running' | 'not our child' {
  // On a blocking description the daemon parks the call itself, so the kernel must not block: WNOHANG always.
  const hang = nonblocking && !noHang ? 0 : WNOHANG;
  const answer = pidfd!.askWaitid(WEXITED | WNOWAIT | hang);
  if (answer === null || answer === 'EAGAIN') return 'running';
  if (answer === 'ECHILD') return 'not our child';
  return isEnd(answer) ? 'ended' : 'trapped';
}
