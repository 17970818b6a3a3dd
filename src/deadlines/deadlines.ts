/** How many are run at a time: others are served in between. */
const BATCH = 256;

/** What wakes the daemon at the earliest deadline. */
export interface Alarm {
  /** @param at milliseconds on CLOCK_BOOTTIME; `null`: never */
  set(at: number | null): void;
}

/** One entry of {@link Deadlines}. */
export class Deadline {
  /** Milliseconds on CLOCK_BOOTTIME. */
  at: number;
  readonly due: () => void;
  /** Its place in the heap; -1 once it has passed or was cancelled. */
  index = -1;

  constructor(at: number, due: () => void) {
    this.at = at;
    this.due = due;
  }
}

/**
 * Everything that is to happen at a time: a binary heap on CLOCK_BOOTTIME with one armed alarm. An entry costs no descriptor, and
 * adding, moving and cancelling one cost O(log n).
 */
export class Deadlines {
  readonly #heap: Deadline[] = [];
  readonly #alarm: Alarm;
  readonly #now: () => number;
  #armed: number | null = null;

  /** @param now the present on the alarm's clock */
  constructor(alarm: Alarm, now: () => number) {
    this.#alarm = alarm;
    this.#now = now;
  }

  get size(): number {
    return this.#heap.length;
  }

  /**
   * @param at milliseconds on CLOCK_BOOTTIME; one that has passed is due at once, but never during this call
   * @param due called once, unless the entry is cancelled before
   */
  add(at: number, due: () => void): Deadline {
    const deadline = new Deadline(at, due);
    this.#up(this.#heap.length, deadline);
    this.#arm();
    return deadline;
  }

  /** Gives an entry another time; one that has passed or was cancelled stays so. */
  move(deadline: Deadline, at: number): void {
    if (deadline.index === -1) return;
    this.#take(deadline);
    deadline.at = at;
    this.#up(this.#heap.length, deadline);
    this.#arm();
  }

  cancel(deadline: Deadline): void {
    if (deadline.index === -1) return;
    this.#take(deadline);
    this.#arm();
  }

  /** Runs what is due, in its order. The alarm goes off again where that was not all. */
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
    // The last one takes its place, and belongs above or below it.
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
