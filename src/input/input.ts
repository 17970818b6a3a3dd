import { constants } from 'node:os';
import type { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno, SystemError } from '../kernel/errno.ts';
import { isBroken, writeAside, writeNow } from '../kernel/pipe.ts';
import { eofCharacterOf, type Size, setSize } from '../kernel/terminal.ts';
import { Listeners } from '../model/listeners.ts';
import type { InputKind } from '../model/process.ts';

/** Runs a call that may take long. */
export type Aside = <T>(call: () => Promise<T>) => Promise<T>;

/** A write that has its turn, or waits for it. Disposing lets the next one begin. */
export interface Turn extends Disposable {
  readonly isReady: boolean;
}

interface Place {
  isReady: boolean;
  onReady: () => void;
}

/**
 * The daemon's end of a program's input: the write end of a pipe, or the master of a terminal. Writes take turns in the order in which
 * they came, so that they never mix.
 *
 * A program can hold up every call on its pipe, except poll(2), for as long as it likes: the kernel locks the pipe while the program reads,
 * and the program may provide the memory itself (userfaultfd(2), FUSE). So they run on threads, and so do those on a terminal that need its
 * settings, or that hang it up.
 */
export class Input {
  readonly kind: InputKind;
  readonly #descriptor: Descriptor;
  readonly #epoll: Pick<Epoll<Wakeup>, 'remove'>;
  readonly #registration: Registration;
  readonly #ready = new Listeners();
  readonly #closed = new Listeners();
  readonly #queue = new Set<Place>();
  readonly #aside: Aside;
  #isOpen = true;

  /**
   * @param descriptor nonblocking. The input owns it.
   * @param aside runs a call on a thread, after those before it
   */
  constructor(kind: InputKind, descriptor: Descriptor, epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>, aside: Aside) {
    this.kind = kind;
    this.#descriptor = descriptor;
    this.#epoll = epoll;
    this.#aside = aside;
    this.#registration = epoll.add(descriptor, new Wakeup(() => this.#wake()), { writable: true });
  }

  get descriptor(): Descriptor {
    return this.#descriptor;
  }

  /** Whether it was not closed, neither by {@link end} nor because nobody reads it. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Subscribes to events of the descriptor, and to its end. @returns a function that ends the subscription */
  onReady(listener: () => void): () => void {
    return this.#ready.on(listener);
  }

  /** Subscribes to the end: the descriptor is closed then. @returns a function that ends the subscription */
  onClosed(listener: () => void): () => void {
    return this.#closed.on(listener);
  }

  /** Whether a write has its turn or waits for it. */
  get isBusy(): boolean {
    return this.#queue.size > 0;
  }

  /** Queues a write. @param onReady called when its turn has come, unless it comes at once */
  enter(onReady: () => void): Turn {
    const place: Place = { isReady: this.#queue.size === 0, onReady };
    this.#queue.add(place);
    return {
      get isReady() {
        return place.isReady;
      },
      [Symbol.dispose]: () => {
        if (this.#queue.delete(place)) this.#next();
      },
    };
  }

  #next(): void {
    const [next] = this.#queue;
    if (next === undefined || next.isReady) return;
    next.isReady = true;
    // Not at once: thousands of writes may fail one after the other.
    setImmediate(() => next.onReady());
  }

  /**
   * Writes as write(2) does on a nonblocking descriptor.
   * @returns how many bytes were accepted, 0 if none fit
   * @throws {SystemError} EPIPE if nobody can read them; a pipe is closed then. EIO of a terminal, whose output may be unread yet
   */
  async write(bytes: Buffer): Promise<number> {
    if (this.kind === 'tty') return writeNow(this.#open, bytes);
    try {
      return await this.#whileOpen((descriptor) => writeAside(descriptor, bytes));
    } catch (error) {
      if (isErrno(error, 'EPIPE')) this.close();
      throw error;
    }
  }

  /** @throws {SystemError} EPIPE if the input was closed */
  get #open(): Descriptor {
    if (this.#isOpen) return this.#descriptor;
    throw new SystemError('write', constants.errno.EPIPE);
  }

  /** Runs a call on a thread. @throws {SystemError} EPIPE if the input was closed before */
  #whileOpen<T>(call: (descriptor: Descriptor) => Promise<T>): Promise<T> {
    return this.#aside(() => call(this.#open));
  }

  #wake(): void {
    if (this.kind === 'pipe' && isBroken(this.#descriptor)) this.close();
    else this.#ready.emit();
  }

  /**
   * Lets the program read an end of file after what it was sent: closes a pipe, and types the EOF character into a terminal, which stays
   * open (termios(3), VEOF).
   * @returns `full` if a terminal has no room for it now, `disabled` if its programs have disabled it
   */
  async end(): Promise<'done' | 'full' | 'disabled'> {
    if (this.kind === 'pipe') {
      this.close();
      return 'done';
    }
    const eof = await this.#whileOpen(eofCharacterOf);
    if (eof === null) return 'disabled';
    return (await this.write(eof)) > 0 ? 'done' : 'full';
  }

  /** Sets the size of a terminal. @throws {SystemError} EPIPE if it was closed */
  resize(size: Size): Promise<void> {
    return this.#whileOpen((descriptor) => setSize(descriptor, size));
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#epoll.remove(this.#registration);
    void this.#aside(() => this.#descriptor.closeAside());
    this.#ready.emit();
    this.#closed.emit();
  }
}
