import { setTimeout } from 'node:timers/promises';
import { isErrno } from '../kernel/errno.ts';
import { inTurns } from '../kernel/in-turns.ts';
import { Census, SLICE_MS } from './census.ts';

/** After a search it rests as long as that took, but no longer than this, in milliseconds. */
const LONGEST_REST_MS = 250;

/** Searches /proc. One search serves all that have asked for one before it began, and at most half of a core is used. */
export class Search<T> {
  readonly #found: (asking: T, census: Census) => void;
  readonly #asking = new Set<T>();
  /** Of the next search. */
  #done = Promise.withResolvers<void>();
  #isRunning = false;
  #isStopped = false;

  /** @param found called for each that has asked */
  constructor(found: (asking: T, census: Census) => void) {
    this.#found = found;
  }

  /** Asks for a search that begins after this call. @returns once it is done, or has failed because no descriptor is free */
  ask(asking: T): Promise<void> {
    if (this.#isStopped) return Promise.resolve();
    this.#asking.add(asking);
    const { promise } = this.#done;
    if (!this.#isRunning) void this.#run();
    return promise;
  }

  /** Takes the question back, unless its search has begun. */
  cancel(asking: T): void {
    this.#asking.delete(asking);
  }

  stop(): void {
    this.#isStopped = true;
    this.#done.resolve();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (!this.#isStopped && this.#asking.size > 0) {
      const began = performance.now();
      const asking = [...this.#asking];
      const done = this.#done;
      this.#asking.clear();
      this.#done = Promise.withResolvers<void>();
      const census = await takeCensus();
      if (census === null) for (const each of asking) this.#asking.add(each);
      else for await (const each of inTurns(asking, SLICE_MS)) if (!this.#isStopped) this.#found(each, census);
      done.resolve();
      const rest = census === null ? LONGEST_REST_MS : Math.min(performance.now() - began, LONGEST_REST_MS);
      await setTimeout(rest, undefined, { ref: false });
    }
    this.#isRunning = false;
  }
}

/** @returns `null` if /proc cannot be read because no descriptor is free */
async function takeCensus(): Promise<Census | null> {
  try {
    return await Census.take();
  } catch (error) {
    if (isErrno(error, 'EMFILE', 'ENFILE')) return null;
    throw error;
  }
}
