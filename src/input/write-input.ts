import { isErrno } from '../kernel/errno.ts';
import { PIPE_BUF } from '../kernel/pipe.ts';
import type { ByteSource } from './byte-source.ts';
import type { Input, Turn } from './input.ts';

/** A multiple of every page size (4 to 64 KiB). */
const PAGES = 65536;

/** More than a pipe holds, unless a program has privileges and has made its own larger. */
const MOST_COLLECTED = 2 ** 20 + PAGES;

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
  /** Whether the input took every byte, but not the end that should follow them. */
  lacksEnd: boolean;
  /** Why the write has ended: `all` was accepted, the input was `full` or is `broken`, or what `attend` has reported. */
  why: 'all' | 'full' | 'broken' | End;
}

/**
 * Writes bytes to an input, as they come, in its turn. A write that ends early leaves the rest of its source unread.
 * @throws what `attend` throws
 */
export async function writeInput<End>(
  input: Input,
  source: ByteSource,
  { waits, eof, attend }: WriteOptions<End>,
): Promise<Written<End>> {
  const ended: { why?: End } = {};
  let wake = (): void => {};
  const notify = (): void => wake();
  using held = new DisposableStack();
  held.use(
    attend((why) => {
      ended.why = why;
      notify();
    }),
  );
  held.defer(source.onMore(notify));
  const write = new Write(input, source, waits, eof);
  let turn: Turn | null = null;
  for (let isListening = false; ; ) {
    // Before it looks, so that nothing can come unnoticed.
    const { promise: changed, resolve } = Promise.withResolvers<void>();
    wake = resolve;
    let why: Written<End>['why'] | null = ended.why ?? null;
    if (why === null && turn === null) {
      if (!input.isOpen) why = 'broken';
      // A write that does not wait holds up no other until its bytes have come.
      else if (waits || write.isPrepared) {
        if (!waits && input.isBusy) why = 'full';
        else turn = held.use(input.enter(notify));
      }
    }
    if (why === null && turn?.isReady === true) {
      if (!isListening) held.defer(input.onReady(notify));
      isListening = true;
      why = (await write.run()) ?? ended.why ?? null;
    }
    if (why !== null) return { accepted: write.accepted, lacksEnd: write.lacksEnd, why };
    await changed;
  }
}

/** A write that has its turn. */
class Write {
  /** How many bytes the input has taken. */
  accepted = 0;
  /** As {@link Written.lacksEnd}. */
  lacksEnd = false;
  readonly #input: Input;
  readonly #source: ByteSource;
  readonly #waits: boolean;
  readonly #eof: boolean;
  /** The bytes that were taken from the source and not accepted yet, and how many they are. */
  #pending: Buffer[] = [];
  #size = 0;

  constructor(input: Input, source: ByteSource, waits: boolean, eof: boolean) {
    this.#input = input;
    this.#source = source;
    this.#waits = waits;
    this.#eof = eof;
  }

  /**
   * Writes as far as the input takes the bytes and the source has them.
   * @returns why the write has ended; `null` if it goes on after a change of either
   */
  async run(): Promise<'all' | 'full' | 'broken' | null> {
    try {
      for (let bytes = this.#collected(); bytes !== null; bytes = this.#collected()) {
        const wanted = bytes.length - this.#excess(bytes);
        const count = await this.#input.write(bytes.subarray(0, wanted));
        this.accepted += count;
        this.#size = bytes.length - count;
        this.#pending = this.#size === 0 ? [] : [bytes.subarray(count)];
        if (count < wanted) return this.#waits ? null : 'full';
      }
      if (!this.#source.isEnded) return this.#input.isOpen ? null : 'broken';
      if (!this.#eof) return 'all';
      const end = await this.#input.end();
      this.lacksEnd = end !== 'done';
      if (end !== 'full') return 'all';
      return this.#waits ? null : 'full';
    } catch (error) {
      if (isErrno(error, 'EPIPE', 'EIO')) return 'broken';
      throw error;
    }
  }

  /** Whether the bytes that decide the first write have come. */
  get isPrepared(): boolean {
    return this.#collect() || this.#source.isEnded;
  }

  /**
   * Returns how many bytes to leave out of a write of some of the bytes. What does not fill a page may go into the last one that a pipe
   * already has, so the number that fit depends on the remainder.
   */
  #excess({ length }: Buffer): number {
    const left = (this.#source.length ?? 0) - this.accepted;
    return this.#waits || left <= length ? 0 : (length - (left % PAGES)) % PAGES;
  }

  /** @returns the bytes to write next; `null` if more must come first, or none are left */
  #collected(): Buffer | null {
    if (!this.#collect()) return null;
    return this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
  }

  /** Takes bytes from the source. @returns whether there are enough for the next write */
  #collect(): boolean {
    const least = this.#least();
    while (this.#size < least) {
      const bytes = this.#source.take();
      if (bytes === null) return false;
      this.#pending.push(bytes);
      this.#size += bytes.length;
    }
    return true;
  }

  /**
   * Returns how many bytes to collect before a write, so that one write(2) decides as it would for the caller: whether all of up to
   * PIPE_BUF bytes are accepted at once, and how many fit into a pipe.
   */
  #least(): number {
    const { length } = this.#source;
    if (length === null) return 1;
    const left = length - this.accepted;
    if (this.#waits) return Math.max(1, this.accepted === 0 && left <= PIPE_BUF ? left : 1);
    return Math.max(1, Math.min(left, MOST_COLLECTED));
  }
}
