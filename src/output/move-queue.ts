/** How many moves run at a time. libuv has four threads, and captured output must stay readable when its disk is slow. */
const MOST = 2;

/** How many run including slow ones. */
const MOST_WITH_SLOW = 3;

/** A move that takes longer is slow and does not count, in milliseconds. */
const SLOW_MS = 5000;

/**
 * Runs few moves of bytes from or to pipes at a time: one of each client, and the clients in turn.
 *
 * A program can delay a move for as long as it likes: the kernel locks a pipe while it copies what is written to it, and the program may
 * provide that memory itself (userfaultfd(2), FUSE). So only its own client waits.
 */
export class MoveQueue {
  readonly #running = new Set<string>();
  readonly #slow = new Set<string>();
  /** The waiting moves of each client. The client that is next comes first. */
  readonly #waiting = new Map<string, (() => void)[]>();

  async take<T>(client: string, move: () => Promise<T>): Promise<T> {
    if (this.#mayGo(client)) this.#running.add(client);
    else await this.#turn(client);
    const slow = setTimeout(() => {
      this.#slow.add(client);
      this.#next();
    }, SLOW_MS).unref();
    try {
      return await move();
    } finally {
      clearTimeout(slow);
      this.#slow.delete(client);
      this.#running.delete(client);
      this.#next();
    }
  }

  #turn(client: string): Promise<void> {
    return new Promise((resolve) => {
      const others = this.#waiting.get(client);
      if (others === undefined) this.#waiting.set(client, [resolve]);
      else others.push(resolve);
    });
  }

  #mayGo(client: string): boolean {
    const counted = this.#running.size - this.#slow.size;
    return counted < MOST && this.#running.size < MOST_WITH_SLOW && !this.#running.has(client);
  }

  #next(): void {
    for (const [client, waiting] of this.#waiting) {
      if (!this.#mayGo(client)) continue;
      const go = waiting.shift()!;
      this.#running.add(client);
      this.#waiting.delete(client);
      if (waiting.length > 0) this.#waiting.set(client, waiting);
      go();
      return;
    }
  }
}
