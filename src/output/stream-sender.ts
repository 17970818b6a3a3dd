import type { OpenDescription, Stream } from '../model/process.ts';
import { notCaptured, OutputFile } from './output-file.ts';
import type { Outputs } from './outputs.ts';

/** How many bytes are sent at a time at the most. */
const CHUNK = 65536;

/** The receiving end of a captured stream. */
export interface StreamReceiver {
  bytes(stream: Stream, offset: number, bytes: Buffer): void;
  /** Bytes that are not kept any more, `to` exclusive. */
  gap(stream: Stream, from: number, to: number): void;
  /** Resolves when more may be sent. */
  room(): Promise<void>;
}

/**
 * Sends a captured stream from an offset on until its last writer has closed it. It reads from the file as fast as the receiver takes
 * it, and holds no more than one chunk.
 */
export class StreamSender implements Disposable {
  readonly stream: Stream;
  readonly #outputs: Outputs;
  readonly #description: OpenDescription;
  readonly #file: OutputFile;
  /** The offset of the next byte to send. */
  #at: number;
  #isRunning = false;
  #isStopped = false;
  #wake: () => void = () => {};

  private constructor(
    outputs: Outputs,
    description: OpenDescription,
    stream: Stream,
    file: OutputFile,
    offset: number | undefined,
  ) {
    this.#outputs = outputs;
    this.#description = description;
    this.stream = stream;
    this.#file = file;
    this.#at = offset ?? file.extent.size;
  }

  /**
   * Opens a stream.
   * @param offset where to begin; `undefined` after everything that was written before this call
   * @throws {Problem} ENODATA, EMFILE
   */
  static async open(
    outputs: Outputs,
    description: OpenDescription,
    stream: Stream,
    offset: number | undefined,
  ): Promise<StreamSender> {
    const { id, output } = description;
    if (!output.streams.includes(stream)) throw notCaptured();
    const live = outputs.streamOf(id, stream);
    await outputs.flush(id, stream);
    const file = await OutputFile.open(outputs.pathOf(id, stream), live);
    return new StreamSender(outputs, description, stream, file, offset);
  }

  /** The offset of the next byte that it sends. */
  get offset(): number {
    return this.#at;
  }

  /** How many bytes were written so far. */
  get size(): number {
    return this.#file.extent.size;
  }

  /**
   * Sends everything.
   * @returns once the stream has ended and all of it was sent, or this was disposed of
   * @throws {Error} if the file cannot be read
   */
  async run(receiver: StreamReceiver): Promise<void> {
    const { id } = this.#description;
    this.#isRunning = true;
    try {
      while (!this.#isStopped) {
        const { promise: changed, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        // Before the file is read, so that nothing can come unnoticed.
        using following = new DisposableStack();
        following.defer(this.#outputs.follow(id, this.stream, resolve));
        const hasEnded = this.#outputs.streamOf(id, this.stream)?.open !== true;
        await this.#sendWritten(receiver);
        if (hasEnded) return;
        await changed;
      }
    } finally {
      await this.#file.close();
    }
  }

  async #sendWritten(receiver: StreamReceiver): Promise<void> {
    for (;;) {
      await receiver.room();
      const { first, size } = this.#file.extent;
      this.#skip(receiver, Math.min(first, size));
      if (this.#isStopped || this.#at >= size) return;
      const { bytes, from } = await this.#file.bytes(this.#at, Math.min(size, this.#at + CHUNK));
      if (this.#isStopped) return;
      if (bytes.length === 0 && from === this.#at) throw new Error('the file is shorter than its stream');
      this.#skip(receiver, from);
      if (bytes.length > 0) receiver.bytes(this.stream, from, bytes);
      this.#at += bytes.length;
    }
  }

  /** Reports bytes that were dropped before they could be sent. */
  #skip(receiver: StreamReceiver, first: number): void {
    if (first <= this.#at || this.#isStopped) return;
    receiver.gap(this.stream, this.#at, first);
    this.#at = first;
  }

  /** Stops. Nothing is sent after this. */
  [Symbol.dispose](): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#wake();
    if (!this.#isRunning) void this.#file.close();
  }
}
