import type { Pidfd } from '../kernel/pidfd.ts';
import type { Process } from './process.ts';

export type Stream = 'stdout' | 'stderr';

/** What of a spawned process is captured. */
export interface Output {
  readonly streams: readonly Stream[];
  /** Nobody writes any more, and this has been told. */
  ended: boolean;
}

/**
 * An open file description on a process: what O_NONBLOCK belongs to. Handles made with `dup` share it, and so does a wait
 * that is parked on it, which is why it may outlive the handle, as a file does under a blocked system call.
 */
export class Description {
  /** The journal's number for it. */
  readonly id: number;
  readonly process: Process;
  /** Belongs to what the spawn made, so that handles made with `dup` share it, and an `open` of the same process has none. */
  readonly output: Output;
  #pidfd: Pidfd | null;
  #nonblocking: boolean;
  #references = 0;

  /** @param pidfd `null` where the process has ended and the descriptor was given up */
  constructor(
    id: number,
    process: Process,
    pidfd: Pidfd | null,
    nonblocking: boolean,
    output: Output = { streams: [], ended: true },
  ) {
    this.id = id;
    this.process = process;
    this.output = output;
    this.#pidfd = pidfd;
    this.#nonblocking = nonblocking;
    if (pidfd !== null) process.descriptions.add(this);
  }

  /** While the process lives. */
  get pidfd(): Pidfd | null {
    return this.#pidfd;
  }

  /** The real flag while the process lives; a setting of the record after that. */
  get nonblocking(): boolean {
    return this.#nonblocking;
  }

  set nonblocking(on: boolean) {
    if (this.#pidfd !== null) this.#pidfd.nonblocking = on;
    this.#nonblocking = on;
  }

  retain(): void {
    this.#references += 1;
  }

  /** @returns true when that was the last reference */
  drop(): boolean {
    this.#references -= 1;
    return this.#references === 0;
  }

  /** Gives the descriptor away, to be closed or kept by the caller. */
  takePidfd(): Pidfd | null {
    const pidfd = this.#pidfd;
    this.#pidfd = null;
    this.process.descriptions.delete(this);
    return pidfd;
  }
}
