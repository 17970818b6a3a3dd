import type { WaitEvent } from '../kernel/waitid.ts';

/** One child that is being made. */
export interface Birth {
  /** Later ones have higher numbers. */
  readonly number: number;
  /** Its pid is known, or there is none. */
  over(): void;
}

/** What was seen of an unknown child, when births before that number were under way. */
interface Sighting<T> {
  before: number;
  seen: T;
}

/**
 * Children that are being made. Their pids are not known until posix_spawn(3) returns, and by then they may have stopped, or ended:
 * an unknown child that shows up meanwhile may be one of them. It cannot be one whose birth began after it was seen.
 */
export class Births {
  #next = 0;
  /** In their order. */
  readonly #underWay = new Set<number>();
  #stranger: Sighting<number> | null = null;
  readonly #pauses = new Map<number, Sighting<WaitEvent>>();

  get underWay(): boolean {
    return this.#underWay.size > 0;
  }

  /** @param onOver told when it is over, if an unknown child was seen before that */
  begin(onOver: () => void): Birth {
    const number = this.#next;
    this.#next += 1;
    this.#underWay.add(number);
    const over = (): void => {
      this.#underWay.delete(number);
      if (this.#underWay.size === 0) this.#pauses.clear();
      if (this.#stranger !== null) onOver();
    };
    return { number, over };
  }

  /** Whether an unknown child that has ended may be one of them: then it is not to be reaped yet. */
  mayBe(pid: number): boolean {
    const [oldest] = this.#underWay;
    if (this.#stranger?.seen !== pid) this.#stranger = { seen: pid, before: this.#next };
    if (oldest !== undefined && oldest < this.#stranger.before) return true;
    this.#stranger = null;
    return false;
  }

  /** No unknown child that has ended is left. */
  noStranger(): void {
    this.#stranger = null;
  }

  /** Keeps a stop or a continue of an unknown child. */
  keepStop(pid: number, event: WaitEvent): void {
    if (this.underWay) this.#pauses.set(pid, { seen: event, before: this.#next });
  }

  /** What was kept of a child that is known now. */
  takeStop(pid: number, { number }: Birth): WaitEvent | null {
    const kept = this.#pauses.get(pid);
    this.#pauses.delete(pid);
    return kept !== undefined && number < kept.before ? kept.seen : null;
  }
}
