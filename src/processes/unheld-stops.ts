import type { WaitEvent } from '../kernel/waitid.ts';

/**
 * The stops of children without a handle. The kernel reports a stop once, so the daemon keeps it for the first client that opens the
 * child. Entries are by pid, because only the daemon reaps these children, and it removes the entry then.
 */
export class UnheldStops {
  readonly #stops = new Map<number, WaitEvent>();

  /** Records a stop; a continue removes what was recorded. */
  note(pid: number, event: WaitEvent): void {
    if (event.siginfo.code === 'CLD_CONTINUED') this.#stops.delete(pid);
    else this.#stops.set(pid, event);
  }

  /** Returns the stop of a child that gets its first handle, or is reaped, and forgets it. */
  take(pid: number): WaitEvent | null {
    const stop = this.#stops.get(pid) ?? null;
    this.#stops.delete(pid);
    return stop;
  }

  /** All of them, for the next image of this process. */
  get all(): WaitEvent[] {
    return [...this.#stops.values()];
  }
}
