import { type FileHandle, open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { firstData } from '../kernel/file.ts';

/** How many bytes are read at a time. */
const CHUNK = 65536;
const NEWLINE = 10;

/** An observation of a stream. It ends with its scope. */
export interface Watch extends Disposable {
  happened: Promise<void>;
}

/** The offset of the first byte that is kept, and how many bytes were written so far. */
export interface Extent {
  first: number;
  size: number;
}

/** The means to follow a stream. */
export interface Following {
  /** Returns whether no more bytes can come. */
  isOver(): boolean;
  /** Returns whether that is because the reader is sent away, and not because the stream has ended. */
  isCut(): boolean;
  /** Begins to observe that and the file. Called before the file is read. */
  watch(): Watch;
  /** Resolves when everything that was written before is in the file. */
  flush(): Promise<void>;
}

/** One reader's view of a captured stream. Offsets count from the beginning of the stream, however much of it was dropped. */
export class OutputFile {
  readonly #file: FileHandle;
  readonly #extent: Readonly<Extent>;

  private constructor(file: FileHandle, extent: Readonly<Extent>) {
    this.#file = file;
    this.#extent = extent;
  }

  /**
   * Opens the file of a stream.
   * @param live the extent of a stream that is still written to: the kernel reports a size only when a write is over, however slow the disk
   * @throws {Problem} ENODATA if the file does not exist, EMFILE
   */
  static async open(path: string, live?: Readonly<Extent>): Promise<OutputFile> {
    try {
      const file = await open(path, 'r');
      return new OutputFile(file, live ?? (await extentOf(file)));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) throw notCaptured();
      if (isErrno(error, 'EMFILE', 'ENFILE'))
        throw new Problem('EMFILE', 'The daemon is out of descriptors: retry after a second.', {
          retry: { afterMs: 1000 },
        });
      throw error;
    }
  }

  /** The extent as it is now. */
  get extent(): Extent {
    const { first, size } = this.#extent;
    return { first, size };
  }

  /** Returns the offset at which the last lines begin. A last line without a newline counts. */
  async startOfLines(lines: number): Promise<number> {
    const { first, size } = this.extent;
    let left = lines;
    for (let end = size; end > first && left > 0; end -= CHUNK) {
      const from = Math.max(first, end - CHUNK);
      const block = await this.#read(from, end - from);
      // The newline at the end of the last line begins no other line.
      const last = end === size ? block.length - 2 : block.length - 1;
      for (let at = last; at >= 0; at -= 1) {
        if (block[at] !== NEWLINE) continue;
        left -= 1;
        if (left === 0) return from + at + 1;
      }
    }
    return lines === 0 ? size : first;
  }

  /**
   * Returns bytes that are kept, `to` exclusive.
   * @param from moved forward if the limit overtakes the reader
   */
  async bytes(from: number, to: number): Promise<{ bytes: Buffer; from: number }> {
    const bytes = await this.#read(from, to - from);
    // The limit moves before it makes a hole, so what it has not reached by now was read before.
    const kept = Math.min(Math.max(from, this.extent.first), to);
    return { bytes: bytes.subarray(kept - from), from: kept };
  }

  /** Returns the bytes of a range, `to` exclusive. The stream closes the file, however it ends. */
  range(from: number, to: number): Readable {
    return this.#stream(this.#range(from, to));
  }

  /** Returns the bytes from an offset on, and those that are written meanwhile. The stream closes the file, however it ends. */
  follow(from: number, following: Following): Readable {
    return this.#stream(this.#follow(from, following));
  }

  #stream(bytes: AsyncGenerator<Buffer, void>): Readable {
    // A generator that was never begun runs no `finally`, but the stream always closes.
    return Readable.from(bytes, { objectMode: false }).once('close', () => void this.close());
  }

  async *#range(from: number, to: number): AsyncGenerator<Buffer, void> {
    for (let at = from; at < to; ) {
      const block = await this.#present(at, Math.min(CHUNK, to - at));
      if (block.length === 0) return;
      at += block.length;
      yield block;
    }
  }

  async *#follow(from: number, { isOver, isCut, watch, flush }: Following): AsyncGenerator<Buffer, void> {
    for (let at = from; ; ) {
      using change = watch();
      const over = isOver();
      if (over) await flush();
      // After the end of the process others may still write. What they have written by now is the last that counts.
      for (const { size } = this.extent; at < size; ) {
        const block = await this.#present(at, Math.min(CHUNK, size - at));
        if (block.length === 0) throw new Error('the stream has been removed');
        at += block.length;
        yield block;
      }
      // An error breaks the answer off. A normal end would tell the reader that it has everything.
      if (over && isCut()) throw new Error('the daemon ends before the stream does');
      if (over) return;
      await change.happened;
    }
  }

  /** @throws {Error} if the limit has overtaken the reader: it must not get the zeros of a hole */
  async #present(at: number, length: number): Promise<Buffer> {
    const block = await this.#read(at, length);
    if (block.length > 0 && this.extent.first > at) throw new Error('the bytes at this offset have been dropped');
    return block;
  }

  async #read(at: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    let count = 0;
    while (count < length) {
      const { bytesRead } = await this.#file.read(buffer, count, length - count, at + count);
      if (bytesRead === 0) break;
      count += bytesRead;
    }
    return buffer.subarray(0, count);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

export function notCaptured(): Problem {
  return new Problem('ENODATA', 'This stream was not captured: spawn with "capture" for it.');
}

/** Returns the extent of a file that is not written to any more. */
async function extentOf(file: FileHandle): Promise<Extent> {
  const { size } = await file.stat();
  return { first: Math.min(firstData(file.fd) ?? size, size), size };
}
