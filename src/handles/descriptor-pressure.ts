import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { outOfDescriptors } from './refusals.ts';

/** Holds descriptors that it can do without. */
export interface Dispensable {
  /** Closes the oldest descriptor. @returns whether there was one */
  giveUp(): boolean;
}

/**
 * Makes room when descriptors run out. The pidfds that the daemon holds for its own convenience are closed, the oldest one at each try,
 * because every other descriptor is in use by a client.
 */
export class DescriptorPressure {
  readonly #holders: readonly Dispensable[];

  /** @param holders the first one gives up its descriptors first */
  constructor(holders: readonly Dispensable[]) {
    this.#holders = holders;
  }

  /**
   * Calls a function until it gets its descriptors.
   * @throws {Problem} EMFILE if no descriptor can be closed for it; any other error of the function
   */
  relieve<T>(make: () => T): T {
    for (;;)
      try {
        return make();
      } catch (error) {
        this.#giveUp(error);
      }
  }

  /** Does the same for an asynchronous function. */
  async relieveAsync<T>(make: () => Promise<T>): Promise<T> {
    for (;;)
      try {
        return await make();
      } catch (error) {
        this.#giveUp(error);
      }
  }

  #giveUp(error: unknown): void {
    const isShort = isErrno(error, 'EMFILE', 'ENFILE') || (error instanceof Problem && error.errno === 'EMFILE');
    if (!isShort) throw error;
    if (!this.#holders.some((holder) => holder.giveUp())) throw outOfDescriptors();
  }
}
