import type { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { capacityOf, isBroken, writeNow } from '../kernel/pipe.ts';
import { eofCharacterOf, type Size, setSize } from '../kernel/terminal.ts';
import { Listeners } from '../model/listeners.ts';
import type { InputKind } from '../model/process.ts';

/** How many bytes a terminal takes at a time at the most. It has no size that could be asked for. */
const TERMINAL_CAPACITY = 65536;

/** A pipe may be made larger by a program, but no more bytes than this are collected for one write. */
const MOST_CAPACITY = 2 ** 20;

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
 */
export class Input {
  readonly kind: InputKind;
  readonly #descriptor: Descriptor;
  readonly #epoll: Pick<Epoll<Wakeup>, 'remove'>;
  readonly #registration: Registration;
  readonly #ready = new Listeners();
  readonly #closed = new Listeners();
  readonly #queue = new Set<Place>();

  /** @param descriptor nonblocking. The input owns it. */
  constructor(kind: InputKind, descriptor: Descriptor, epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>) {
    this.kind = kind;
    this.#descriptor = descriptor;
    this.#epoll = epoll;
    this.#registration = epoll.add(descriptor, new Wakeup(() => this.#wake()), { writable: true });
  }

  get descriptor(): Descriptor {
    return this.#descriptor;
  }

  /** Whether it was not closed, neither by {@link end} nor because nobody reads it. */
  get isOpen(): boolean {
    return !this.#descriptor.closed;
  }

  /** How many bytes one write can have accepted at the most. */
  get capacity(): number {
    return this.kind === 'tty' ? TERMINAL_CAPACITY : Math.min(capacityOf(this.#descriptor), MOST_CAPACITY);
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
  write(bytes: Buffer): number {
    try {
      return writeNow(this.#descriptor, bytes);
    } catch (error) {
      if (isErrno(error, 'EPIPE')) this.close();
      throw error;
    }
  }

  #wake(): void {
    if (this.kind === 'pipe' && isBroken(this.#descriptor)) this.close();
    else this.#ready.emit();
  }

  /**
   * Lets the program read an end of file after what it was sent: closes a pipe, and types the EOF character into a terminal, which stays
   * open (termios(3), VEOF).
   * @returns false if a terminal has no room for it now
   */
  end(): boolean {
    if (this.kind === 'tty') return this.write(eofCharacterOf(this.#descriptor)) > 0;
    this.close();
    return true;
  }

  /** Sets the size of a terminal. */
  resize(size: Size): void {
    setSize(this.#descriptor, size);
  }

  close(): void {
    if (this.#descriptor.closed) return;
    this.#epoll.remove(this.#registration);
    this.#descriptor.close();
    this.#ready.emit();
    this.#closed.emit();
  }
}
