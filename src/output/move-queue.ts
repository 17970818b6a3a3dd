/** Moves at a time: libuv's pool has four threads, and what is captured must be readable when its disk is slow. */
const MOST = 2;

/** Including those that take longer than they should. */
const MOST_WITH_SLOW = 3;

/** After this a move no longer counts. */
const SLOW_MS = 5000;

/**
 * Lets few moves of captured output run at a time: one of each client, and the clients in turn.
 *
 * A program can hold up a move for as long as it likes: the kernel locks a pipe while it copies what is written to it, and that may be
 * memory which the program itself provides (userfaultfd(2), FUSE). So its client waits, and others go on.
 */
export class MoveQueue {
  readonly #running = new Set<string>();
  readonly #slow = new Set<string>();
  /** Those that wait, of each client; the client that is next comes first. */
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
