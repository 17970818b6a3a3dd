import type { Sink } from './sink.ts';

/** A sink that notes how far its reader has come, and whether it is quiet. */
export class NotedSink implements Sink {
  /** The cursor from which the reader would resume. */
  cursor = 0;
  /** Since when nothing was sent, as it was last seen; `null` if something was sent after that. */
  quietSince: number | null = null;
  readonly #sink: Sink;
  readonly #onSend: () => void;

  constructor(sink: Sink, onSend: () => void) {
    this.#sink = sink;
    this.#onSend = onSend;
  }

  send(frame: string, seq?: number): void {
    if (seq !== undefined) this.cursor = seq;
    this.quietSince = null;
    this.#sink.send(frame, seq);
    this.#onSend();
  }

  get buffered(): number {
    return this.#sink.buffered;
  }

  reading(on: boolean): void {
    this.#sink.reading?.(on);
  }

  flushed(callback: () => void): void {
    this.#sink.flushed(callback);
  }

  cut(since: number): void {
    this.#sink.cut(since);
  }
}
