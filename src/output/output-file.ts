import { type FileHandle, open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { firstData } from '../kernel/file.ts';

/** Bytes that are read at a time. */
const CHUNK = 65536;
const NEWLINE = 10;

/** An observation that ends with its scope. */
export interface Watch extends Disposable {
  happened: Promise<void>;
}

/** Where the bytes begin that are still there, and how many were written so far. */
export interface Extent {
  first: number;
  size: number;
}

/** What it takes to follow a stream. */
export interface Following {
  /** Whether nothing more can come. */
  isOver(): boolean;
  /** Looks out for a change of that, or of the file. Called before the file is read. */
  watch(): Watch;
  /** Resolves when all that was written before is in the file. */
  flush(): Promise<void>;
}

/** One reader's view of a captured stream. Offsets are the stream's own, however much of its beginning was dropped. */
export class OutputFile {
  readonly #file: FileHandle;
  readonly #extent: Readonly<Extent>;

  private constructor(file: FileHandle, extent: Readonly<Extent>) {
    this.#file = file;
    this.#extent = extent;
  }

  /**
   * @param live what is known of a file that is still written to: the kernel tells only once a write is over, however slow the disk
   * @throws {Problem} ENODATA where it is not there, EMFILE
   */
  static async open(path: string, live?: Readonly<Extent>): Promise<OutputFile> {
    try {
      const file = await open(path, 'r');
      return new OutputFile(file, live ?? (await extentOf(file)));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) throw notCaptured();
      if (isErrno(error, 'EMFILE', 'ENFILE'))
        throw new Problem('EMFILE', 'The daemon is out of descriptors: try again later.', { retry: { afterMs: 1000 } });
      throw error;
    }
  }

  /** How many bytes were written so far, and the offset of the first one that is still there. */
  get extent(): Extent {
    const { first, size } = this.#extent;
    return { first, size };
  }

  /** Where the last lines begin. A last one without a newline counts. */
  async startOfLines(lines: number): Promise<number> {
    const { first, size } = this.extent;
    let left = lines;
    for (let end = size; end > first && left > 0; end -= CHUNK) {
      const from = Math.max(first, end - CHUNK);
      const block = await this.#read(from, end - from);
      // The newline that ends the last line begins none.
      const last = end === size ? block.length - 2 : block.length - 1;
      for (let at = last; at >= 0; at -= 1) {
        if (block[at] !== NEWLINE) continue;
        left -= 1;
        if (left === 0) return from + at + 1;
      }
    }
    return lines === 0 ? size : first;
  }

  /** The bytes of a range, `to` exclusive. The stream closes the file when it ends, however it ends. */
  range(from: number, to: number): Readable {
    return this.#stream(this.#range(from, to));
  }

  /** The bytes from an offset on, and what is written while it is read. */
  follow(from: number, following: Following): Readable {
    return this.#stream(this.#follow(from, following));
  }

  #stream(bytes: AsyncGenerator<Buffer, void>): Readable {
    // A generator that was never begun has no end that it could notice; the stream has.
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

  async *#follow(from: number, { isOver, watch, flush }: Following): AsyncGenerator<Buffer, void> {
    for (let at = from; ; ) {
      using change = watch();
      const over = isOver();
      if (over) await flush();
      // Of a process that has ended, others may still write; what they wrote by now is the last that counts.
      for (const { size } = this.extent; at < size; ) {
        const block = await this.#present(at, Math.min(CHUNK, size - at));
        if (block.length === 0) return;
        at += block.length;
        yield block;
      }
      if (over) return;
      await change.happened;
    }
  }

  /** @throws {Error} where the limit has overtaken the reader: it is cut off rather than given the zeros of a hole */
  async #present(at: number, length: number): Promise<Buffer> {
    const block = await this.#read(at, length);
    if (block.length > 0 && this.extent.first > at) throw new Error('what was to be read next has been dropped');
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

/** Of a file that nobody writes to any more. */
async function extentOf(file: FileHandle): Promise<Extent> {
  const { size } = await file.stat();
  return { first: Math.min(firstData(file.fd) ?? size, size), size };
}
