import type { Caller } from '../clients/caller.ts';
import type { Problem } from '../errors/problem.ts';
import type { Handle } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';

/** The longest time of `setTimeout`, in milliseconds: a longer one fires at once. The contract's durations end here too. */
const LONGEST_MS = 2 ** 31 - 1;

export interface ParkOptions {
  /** `undefined` waits for ever. */
  timeoutMs: number | undefined;
  caller: Caller;
  /** Subscribes to further changes after which to try again. @returns a function that ends the subscription */
  also?: (again: () => void) => () => void;
}

/** Why a parked call ended without a result. */
export type Unparked = 'timed out' | 'aborted';

/** The calls that wait: a promise each, never a thread. */
export class Parking {
  readonly #table: ProcessTable;
  readonly #parked = new Set<(problem: Problem) => void>();
  #closed: Problem | null = null;

  constructor(table: ProcessTable) {
    this.#table = table;
  }

  get size(): number {
    return this.#parked.size;
  }

  /**
   * Parks a call until `attempt` returns something else than `null` after a change of a handle's process. `attempt` must not change a
   * process or ask the kernel, because it is called while an exit is being recorded. The call holds its handles meanwhile.
   * @throws {Problem} what `attempt` throws; EDQUOT; ESHUTDOWN when the daemon stops
   */
  park<T>(
    handles: readonly Handle[],
    attempt: (changed: Handle) => T | null,
    { timeoutMs, caller, also }: ParkOptions,
  ): Promise<T | Unparked> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    if (caller.abortSignal.aborted) return Promise.resolve('aborted');
    const { promise, resolve, reject } = Promise.withResolvers<T | Unparked>();
    const held = new DisposableStack();
    held.use(this.attend({ timeoutMs, caller }, (why) => (typeof why === 'string' ? finish(why) : refuse(why))));
    for (const handle of handles) {
      held.use(this.hold(handle));
      held.defer(handle.process.watch(() => tryAgain(handle)));
      if (also !== undefined) held.defer(also(() => tryAgain(handle)));
    }
    const finish = (result: T | Unparked): void => {
      held.dispose();
      resolve(result);
    };
    const refuse = (problem: unknown): void => {
      held.dispose();
      reject(problem);
    };
    const tryAgain = (changed: Handle): void => {
      try {
        const result = attempt(changed);
        if (result !== null) finish(result);
      } catch (problem) {
        refuse(problem);
      }
    };
    return promise;
  }

  /**
   * Counts a call that waits, and watches for what ends it before its result.
   * @param end called at most once: after the timeout, when the caller disconnects, or with ESHUTDOWN when the daemon stops
   * @returns to be disposed of when the call is answered
   * @throws {Problem} EDQUOT; ESHUTDOWN
   */
  attend(
    { timeoutMs, caller: { client, abortSignal } }: Omit<ParkOptions, 'also'>,
    end: (why: Unparked | Problem) => void,
  ): Disposable {
    this.requireOpen();
    const reservation = client?.reserve('parkedWaits');
    const timer =
      timeoutMs === undefined ? undefined : setTimeout(() => end('timed out'), Math.min(timeoutMs, LONGEST_MS));
    const onAbort = (): void => end('aborted');
    abortSignal.addEventListener('abort', onAbort);
    this.#parked.add(end);
    if (abortSignal.aborted) onAbort();
    return {
      [Symbol.dispose]: () => {
        reservation?.[Symbol.dispose]();
        clearTimeout(timer);
        abortSignal.removeEventListener('abort', onAbort);
        this.#parked.delete(end);
      },
    };
  }

  /**
   * Retains what a call waits on, as the kernel retains the file under a blocked system call: closing the handle does not disturb it.
   * @returns to be disposed of when the call is answered
   */
  hold({ process, client, description }: Handle): Disposable {
    description.retain();
    process.stops.hold(client);
    return {
      [Symbol.dispose]: () => {
        process.stops.release(client);
        this.#table.release(description);
      },
    };
  }

  /** Requires that parked calls are not refused yet. @throws {Problem} ESHUTDOWN when the daemon stops */
  requireOpen(): void {
    if (this.#closed !== null) throw this.#closed;
  }

  /** Refuses every parked call, and later ones. */
  close(problem: Problem): void {
    this.#closed = problem;
    for (const refuse of this.#parked) refuse(problem);
  }
}
