import { isErrno } from '../kernel/errno.ts';
import { PIPE_BUF } from '../kernel/pipe.ts';
import type { ByteSource } from './byte-source.ts';
import type { Input } from './input.ts';

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
  /** The bytes that were taken from the source and not accepted yet, and how many there must be before the next write. */
  #pending: Buffer[] = [];
  #size = 0;
  #least: number;
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
    this.#least = leastOf(input, source, options.waits);
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
    if (!this.#input.isOpen) return this.#end('broken');
    const bytes = this.#collected();
    if (bytes === null) {
      if (!this.#source.isEnded) return false;
      // A terminal may be too full for its EOF character.
      return this.#options.eof && !this.#input.end() ? false : this.#end('all');
    }
    const count = this.#input.write(bytes);
    this.#accepted += count;
    this.#size = bytes.length - count;
    this.#pending = this.#size === 0 ? [] : [bytes.subarray(count)];
    if (this.#size === 0) return true;
    return this.#options.waits ? false : this.#end('full');
  }

  /** @returns the bytes to write next; `null` if more must come first, or none are left */
  #collected(): Buffer | null {
    while (this.#size < Math.max(this.#least, 1)) {
      const bytes = this.#source.take();
      if (bytes === null) break;
      this.#pending.push(bytes);
      this.#size += bytes.length;
    }
    if (this.#size === 0 || (this.#size < this.#least && !this.#source.isEnded)) return null;
    this.#least = 0;
    return this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
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

/**
 * Returns how many bytes to collect before the first write, so that one write(2) decides as it would for the caller: whether all of up
 * to PIPE_BUF bytes are accepted at once, and how many fit into a pipe.
 */
function leastOf(input: Input, { length }: ByteSource, waits: boolean): number {
  if (length === null || !input.isOpen) return 0;
  if (waits) return length <= PIPE_BUF ? length : 0;
  return Math.min(length, input.capacity + 1);
}
