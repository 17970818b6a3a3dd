import type { WaitEvent } from '../kernel/waitid.ts';

/** A child whose fork has been requested and whose pid is not known yet. */
export interface PendingSpawn {
  /** Increases with each spawn. */
  readonly number: number;
  /** Call it once the pid is known, or the spawn has failed. */
  done(): void;
}

/** An observation of an unknown child. It can only be of a spawn with a lower number than `before`. */
interface Observation<T> {
  before: number;
  seen: T;
}

/**
 * Spawns whose pids are not known yet. Such a child may stop or exit before the daemon learns its pid, so an unknown child that
 * the kernel reports meanwhile may belong to one of them. It cannot belong to a spawn that began after the report.
 */
export class PendingSpawns {
  #next = 0;
  /** Numbers, in ascending order. */
  readonly #pending = new Set<number>();
  #unknownExit: Observation<number> | null = null;
  readonly #unknownStops = new Map<number, Observation<WaitEvent>>();

  get size(): number {
    return this.#pending.size;
  }

  /** @param onDone called when the spawn is done, if an unknown child had exited before that */
  begin(onDone: () => void): PendingSpawn {
    const number = this.#next;
    this.#next += 1;
    this.#pending.add(number);
    const done = (): void => {
      this.#pending.delete(number);
      if (this.#pending.size === 0) this.#unknownStops.clear();
      if (this.#unknownExit !== null) onDone();
    };
    return { number, done };
  }

  /** Returns whether an unknown child that has exited may be one of them. It must not be reaped as an orphan then. */
  mayInclude(pid: number): boolean {
    const [oldest] = this.#pending;
    if (this.#unknownExit?.seen !== pid) this.#unknownExit = { seen: pid, before: this.#next };
    if (oldest !== undefined && oldest < this.#unknownExit.before) return true;
    this.#unknownExit = null;
    return false;
  }

  /** Call it when no unknown child that has exited is left. */
  clearUnknownExit(): void {
    this.#unknownExit = null;
  }

  /** Keeps a stop or a continue of an unknown child. */
  keepStop(pid: number, event: WaitEvent): void {
    if (this.size > 0) this.#unknownStops.set(pid, { seen: event, before: this.#next });
  }

  /** Returns the stop or continue that was kept of a child whose pid is known now, and forgets it. */
  takeStop(pid: number, { number }: PendingSpawn): WaitEvent | null {
    const kept = this.#unknownStops.get(pid);
    this.#unknownStops.delete(pid);
    return kept !== undefined && number < kept.before ? kept.seen : null;
  }
}
