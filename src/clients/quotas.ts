import { Problem } from '../errors/problem.ts';

/** What one client may have at a time, and how fast it may ask; what is missing is not limited. */
export interface Quotas {
  /** On processes that have not ended. */
  handles?: number | undefined;
  parkedWaits?: number | undefined;
  /** WebSockets, event streams and followed output. */
  sockets?: number | undefined;
  /** Handles that these follow, all together. */
  subscriptions?: number | undefined;
  connections?: number | undefined;
  spawnsPerSecond?: number | undefined;
  requestsPerSecond?: number | undefined;
  /** Of captured output that is kept, all together. */
  outputBytes?: number | undefined;
}

const advice = {
  handles: 'close some, or wait for some of their processes to end',
  parkedWaits: 'let one be answered first, or use poll for many handles',
  sockets: 'close one, or follow several handles on one socket',
  subscriptions: 'unsubscribe from some handles',
  connections: 'end one, or send several requests on each',
  outputBytes: 'close handles whose output nobody needs',
};
const nouns = {
  handles: 'handles on live processes',
  parkedWaits: 'parked waits',
  sockets: 'sockets, event streams and followed outputs',
  subscriptions: 'handles followed by sockets',
  connections: 'connections',
  outputBytes: 'bytes of captured output',
};

/**
 * A part of a quota that is taken until this is disposed of. It is taken before the first await of whatever uses it, so that requests
 * at the same time cannot pass on the same free place.
 */
export class Reservation implements Disposable {
  #giveBack: (() => void) | null;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  [Symbol.dispose](): void {
    this.#giveBack?.();
    this.#giveBack = null;
  }
}

/** @throws {Problem} EDQUOT where there would be more than that */
export function requireQuota(quotas: Quotas, what: keyof typeof nouns, wanted: number): void {
  const most = quotas[what];
  if (most === undefined || wanted <= most) return;
  throw new Problem('EDQUOT', `You may have ${most} ${nouns[what]} at a time: ${advice[what]}.`, {
    retry: { afterMs: 1000 },
  });
}

/** How often something may be done: a second's worth at once, and then as it comes back. */
export class Rate {
  readonly #what: string;
  #perSecond = Number.POSITIVE_INFINITY;
  #left = 0;
  #at = 0;

  /** @param what in the plural */
  constructor(what: string) {
    this.#what = what;
  }

  /**
   * @param perSecond how often; `undefined` does not limit
   * @throws {Problem} EDQUOT, with when it may be done again
   */
  take(perSecond: number | undefined): void {
    if (perSecond === undefined) return;
    const now = performance.now();
    const most = Math.max(1, perSecond);
    if (perSecond === this.#perSecond) this.#left = Math.min(most, this.#left + ((now - this.#at) * perSecond) / 1000);
    else {
      this.#perSecond = perSecond;
      this.#left = most;
    }
    this.#at = now;
    if (this.#left < 1)
      throw new Problem('EDQUOT', `You may have ${perSecond} ${this.#what} a second: send fewer.`, {
        retry: { afterMs: Math.ceil(((1 - this.#left) * 1000) / perSecond) },
      });
    this.#left -= 1;
  }
}
