import type { WaitEvent } from '../kernel/waitid.ts';

/**
 * The stops of children that nobody holds. The kernel reports a stop once, so the daemon keeps it for the first client that opens the
 * child. Entries go by pid: only the daemon reaps these children, and it removes the entry when it does.
 */
export class UnheldStops {
  readonly #stops = new Map<number, WaitEvent>();

  /** Records a stop; a continue removes what was recorded. */
  note(pid: number, event: WaitEvent): void {
    if (event.siginfo.code === 'CLD_CONTINUED') this.#stops.delete(pid);
    else this.#stops.set(pid, event);
  }

  /** Gives the stop to whoever holds the child from now on. */
  take(pid: number): WaitEvent | null {
    const stop = this.#stops.get(pid) ?? null;
    this.#stops.delete(pid);
    return stop;
  }

  /** For the next image of this process. */
  get all(): WaitEvent[] {
    return [...this.#stops.values()];
  }
}
