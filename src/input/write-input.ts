import { isErrno } from '../kernel/errno.ts';
import { PIPE_BUF } from '../kernel/pipe.ts';
import type { ByteSource } from './byte-source.ts';
import type { Input } from './input.ts';

/** A multiple of every page size (4 to 64 KiB). */
const PAGES = 65536;

export interface WriteOptions<End> {
  /** Whether it waits until everything is accepted. Otherwise it accepts what fits. */
  waits: boolean;
  /** Whether the program reads an end of file after the last byte. */
  eof: boolean;
  /** Watches for what ends the write before its result. It calls back at most once. @returns to be disposed of at the end */
  attend(end: (why: End) => void): Disposable;
}

export interface Written<End> {
  /** How many bytes the pipe or the terminal has taken. */
  accepted: number;
  /** Why the write has ended: `all` was accepted, the input was `full` or is `broken`, or what `attend` has reported. */
  why: 'all' | 'full' | 'broken' | End;
}

/** Writes bytes to an input, as they come, in its turn. A write that ends early leaves the rest of its source unread. */
export function writeInput<End>(input: Input, source: ByteSource, options: WriteOptions<End>): Promise<Written<End>> {
  return new Promise((resolve, reject) => {
    new Write(input, source, options, resolve, reject).begin();
  });
}

class Write<End> {
  readonly #input: Input;
  readonly #source: ByteSource;
  readonly #options: WriteOptions<End>;
  readonly #resolve: (written: Written<End>) => void;
  readonly #reject: (error: unknown) => void;
  readonly #held = new DisposableStack();
  /** The bytes that were taken from the source and not accepted yet, and how many they are. */
  #pending: Buffer[] = [];
  #size = 0;
  #accepted = 0;

  constructor(
    input: Input,
    source: ByteSource,
    options: WriteOptions<End>,
    resolve: (written: Written<End>) => void,
    reject: (error: unknown) => void,
  ) {
    this.#input = input;
    this.#source = source;
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(): void {
    const { waits, attend } = this.#options;
    try {
      this.#held.use(attend((why) => this.#end(why)));
    } catch (error) {
      this.#reject(error);
      return;
    }
    if (!this.#input.isOpen) this.#end('broken');
    else if (!waits && this.#input.isBusy) this.#end('full');
    else if (this.#held.use(this.#input.enter(() => this.#start())).isReady) this.#start();
  }

  /** Begins to write, once it has its turn. */
  #start(): void {
    if (this.#held.disposed) return;
    const go = (): void => this.#go();
    this.#held.defer(this.#source.onMore(go));
    this.#held.defer(this.#input.onReady(go));
    go();
  }

  #go(): void {
    try {
      while (!this.#held.disposed && this.#step());
    } catch (error) {
      if (isErrno(error, 'EPIPE', 'EIO')) this.#end('broken');
      else this.#fail(error);
    }
  }

  /** @returns whether another step may follow at once */
  #step(): boolean {
    const bytes = this.#collected();
    if (bytes === null && this.#source.isEnded) {
      // A terminal may be too full for its EOF character.
      return this.#options.eof && !this.#input.end() ? false : this.#end('all');
    }
    if (!this.#input.isOpen) return this.#end('broken');
    if (bytes === null) return false;
    const wanted = bytes.length - this.#excess(bytes);
    const count = this.#input.write(bytes.subarray(0, wanted));
    this.#accepted += count;
    this.#size = bytes.length - count;
    this.#pending = this.#size === 0 ? [] : [bytes.subarray(count)];
    if (count === wanted) return true;
    return this.#options.waits ? false : this.#end('full');
  }

  /**
   * Returns how many bytes to leave out of a write of some of the bytes. What does not fill a page may go into the last one that a pipe
   * already has, so the number that fit depends on the remainder.
   */
  #excess({ length }: Buffer): number {
    const left = (this.#source.length ?? 0) - this.#accepted;
    return this.#options.waits || left <= length ? 0 : (length - (left % PAGES)) % PAGES;
  }

  /** @returns the bytes to write next; `null` if more must come first, or none are left */
  #collected(): Buffer | null {
    const least = this.#least();
    while (this.#size < least) {
      const bytes = this.#source.take();
      if (bytes === null) break;
      this.#pending.push(bytes);
      this.#size += bytes.length;
    }
    if (this.#size < least) return null;
    return this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
  }

  /**
   * Returns how many bytes to collect before a write, so that one write(2) decides as it would for the caller: whether all of up to
   * PIPE_BUF bytes are accepted at once, and how many fit into a pipe.
   */
  #least(): number {
    const { length } = this.#source;
    if (length === null || !this.#input.isOpen) return 1;
    if (this.#options.waits) return this.#accepted === 0 && length <= PIPE_BUF ? Math.max(length, 1) : 1;
    return Math.max(1, Math.min(length - this.#accepted, this.#input.capacity + PAGES));
  }

  #end(why: Written<End>['why']): false {
    if (this.#held.disposed) return false;
    this.#held.dispose();
    this.#resolve({ accepted: this.#accepted, why });
    return false;
  }

  #fail(error: unknown): void {
    this.#held.dispose();
    this.#reject(error);
  }
}
