/** Deadlines per run. The event loop serves requests between two runs. */
const BATCH = 256;

/** The timer that expires at the earliest deadline. */
export interface Alarm {
  /** @param at milliseconds on CLOCK_BOOTTIME; `null` disarms it */
  set(at: number | null): void;
}

/** One entry of {@link Deadlines}. */
export class Deadline {
  /** Milliseconds on CLOCK_BOOTTIME. */
  at: number;
  readonly due: () => void;
  /** Its position in the heap; -1 once it has run or was cancelled. */
  index = -1;

  constructor(at: number, due: () => void) {
    this.at = at;
    this.due = due;
  }
}

/**
 * All deadlines of the daemon: a binary heap on CLOCK_BOOTTIME with one armed alarm. An entry needs no descriptor, and to add, move or
 * cancel one takes O(log n).
 */
export class Deadlines {
  readonly #heap: Deadline[] = [];
  readonly #alarm: Alarm;
  readonly #now: () => number;
  #armed: number | null = null;

  /** @param now returns the current time on the alarm's clock, in milliseconds */
  constructor(alarm: Alarm, now: () => number) {
    this.#alarm = alarm;
    this.#now = now;
  }

  get size(): number {
    return this.#heap.length;
  }

  /** The current time on the clock of the deadlines, in milliseconds. */
  get now(): number {
    return this.#now();
  }

  /**
   * Adds a deadline.
   * @param at milliseconds on CLOCK_BOOTTIME; a past time is due at once, but not during this call
   * @param due called once, unless the deadline is cancelled before
   */
  add(at: number, due: () => void): Deadline {
    const deadline = new Deadline(at, due);
    this.#up(this.#heap.length, deadline);
    this.#arm();
    return deadline;
  }

  /** Changes the time of a deadline. Has no effect if it has run or was cancelled. */
  move(deadline: Deadline, at: number): void {
    if (deadline.index === -1) return;
    this.#take(deadline);
    deadline.at = at;
    this.#up(this.#heap.length, deadline);
    this.#arm();
  }

  /** Cancels a deadline. Has no effect if it has run or was cancelled. */
  cancel(deadline: Deadline): void {
    if (deadline.index === -1) return;
    this.#take(deadline);
    this.#arm();
  }

  /** Runs one batch of due deadlines in order, and arms the alarm for the next one. */
  run(): void {
    this.#armed = null;
    const now = this.#now();
    try {
      for (let count = 0; count < BATCH; count += 1) {
        const [first] = this.#heap;
        if (first === undefined || first.at > now) break;
        this.#take(first);
        first.due();
      }
    } finally {
      this.#arm();
    }
  }

  #arm(): void {
    const at = this.#heap[0]?.at ?? null;
    if (at === this.#armed) return;
    this.#alarm.set(at);
    this.#armed = at;
  }

  #take(deadline: Deadline): void {
    const { index } = deadline;
    deadline.index = -1;
    const last = this.#heap.pop()!;
    if (last === deadline) return;
    // Moves the last entry into the gap, from where it may have to move up or down.
    this.#up(index, last);
    this.#down(last.index, last);
  }

  #up(from: number, deadline: Deadline): void {
    let index = from;
    while (index > 0) {
      const above = this.#heap[(index - 1) >> 1]!;
      if (above.at <= deadline.at) break;
      this.#put(index, above);
      index = (index - 1) >> 1;
    }
    this.#put(index, deadline);
  }

  #down(from: number, deadline: Deadline): void {
    let index = from;
    for (;;) {
      const left = 2 * index + 1;
      const [first, second] = [this.#heap[left], this.#heap[left + 1]];
      const below = first !== undefined && second !== undefined && second.at < first.at ? second : first;
      if (below === undefined || below.at >= deadline.at) break;
      const next = below.index;
      this.#put(index, below);
      index = next;
    }
    this.#put(index, deadline);
  }

  #put(index: number, deadline: Deadline): void {
    this.#heap[index] = deadline;
    deadline.index = index;
  }
}
