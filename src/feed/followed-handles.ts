import type { Client } from '../clients/client.ts';
import type { Reservation } from '../clients/quotas.ts';
import type { Follower, Subscriptions } from './sink.ts';

/** The handles that a subscriber follows by name: those that are live, and the client's quota for them and for replayed ones. */
export class FollowedHandles {
  readonly #client: Client;
  readonly #subscriptions: Subscriptions;
  readonly #follower: Follower;
  /** Each with the cursor that it has been followed from. */
  readonly #live = new Map<string, number>();
  /** One for each handle, live or replayed. */
  readonly #reservations: Reservation[] = [];

  constructor(client: Client, subscriptions: Subscriptions, follower: Follower) {
    this.#client = client;
    this.#subscriptions = subscriptions;
    this.#follower = follower;
  }

  /** @throws {Problem} EDQUOT if the client may not follow so many more */
  reserve(more: number): void {
    this.#client.requireRoom('subscriptions', more);
    for (let count = 0; count < more; count += 1) this.#reservations.push(this.#client.reserve('subscriptions'));
  }

  /** Gives back the quota for one handle. */
  release(): void {
    this.#reservations.pop()?.[Symbol.dispose]();
  }

  /** Gets a handle's events as they come. @param after the cursor that it has been followed from */
  goLive(handle: string, after: number): void {
    this.#live.set(handle, after);
    this.#subscriptions.follow(handle, this.#follower);
  }

  /** Returns the cursor that a live handle has been followed from; `undefined` if it is not live. */
  startOf(handle: string): number | undefined {
    return this.#live.get(handle);
  }

  /** Stops following a live handle. @returns the cursor that it was followed from; `undefined` if it is not live */
  leave(handle: string): number | undefined {
    const after = this.#live.get(handle);
    if (this.#live.delete(handle)) this.#subscriptions.leave(handle, this.#follower);
    return after;
  }

  /** Stops following all live handles, and keeps their quota. @returns each with the cursor that it was followed from */
  leaveAll(): Map<string, number> {
    const left = new Map(this.#live);
    for (const handle of left.keys()) this.leave(handle);
    return left;
  }

  /** Stops following, and gives back all quota. */
  end(): void {
    this.leaveAll();
    while (this.#reservations.length > 0) this.release();
  }
}
