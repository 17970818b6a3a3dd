import type { Sink } from './sink.ts';

/** A reader with a full buffer is cut off when it has taken nothing for this long, in milliseconds. */
const STALLED_MS = 1000;

/** How long the replays of one reader may hold up all others in one turn of the event loop, in milliseconds. */
const SLICE_MS = 10;

export interface FlowControlParts {
  sink: Sink;
  /** Bytes that may wait in the sink. */
  limit: number;
  /** Called when more may be sent. */
  onReady(): void;
  /** Called when the reader has taken nothing for {@link STALLED_MS}. */
  onStalled(): void;
}

/** Decides when the next past events may be sent to a reader: at its own pace, and in slices of the event loop's time. */
export class FlowControl {
  readonly #parts: FlowControlParts;
  #isWaiting = false;
  #spentMs = 0;
  #turn: NodeJS.Immediate | null = null;
  #stall: NodeJS.Timeout | null = null;

  constructor(parts: FlowControlParts) {
    this.#parts = parts;
  }

  /** Whether more bytes wait for the reader than may. */
  get isFull(): boolean {
    return this.#parts.sink.buffered > this.#parts.limit;
  }

  /** Whether more past events may be sent in this turn of the event loop. */
  get isReady(): boolean {
    return !this.#isWaiting && this.#spentMs < SLICE_MS;
  }

  /** Counts time that was spent on sending. A new turn of the event loop makes it ready again. */
  spend(ms: number): void {
    this.#spentMs += ms;
    this.#turn ??= setImmediate(() => {
      this.#turn = null;
      this.#spentMs = 0;
      this.#parts.onReady();
    });
  }

  /** Waits until the reader has taken everything that waits for it. */
  wait(): void {
    const { sink, onReady, onStalled } = this.#parts;
    this.#isWaiting = true;
    if (this.isFull && this.#stall === null) {
      let { buffered } = sink;
      this.#stall = setInterval(() => {
        if (sink.buffered >= buffered) onStalled();
        else ({ buffered } = sink);
      }, STALLED_MS);
    }
    sink.flushed(() => {
      this.#endStall();
      this.#isWaiting = false;
      onReady();
    });
  }

  #endStall(): void {
    if (this.#stall !== null) clearInterval(this.#stall);
    this.#stall = null;
  }

  stop(): void {
    this.#endStall();
    if (this.#turn !== null) clearImmediate(this.#turn);
    this.#turn = null;
  }
}
