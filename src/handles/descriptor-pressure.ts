import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import type { LeaderlessGroups } from '../processes/leaderless-groups.ts';
import { outOfDescriptors } from './refusals.ts';

/**
 * Makes room when descriptors run out. The pidfds that are kept for leaderless groups are closed first, the oldest one at each try,
 * because every other descriptor is in use by a client.
 */
export class DescriptorPressure {
  readonly #groups: LeaderlessGroups;

  constructor(groups: LeaderlessGroups) {
    this.#groups = groups;
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
    if (!this.#groups.giveUp()) throw outOfDescriptors();
  }
}
