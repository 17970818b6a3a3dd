import { Problem } from '../errors/problem.ts';

/** The quotas and rate limits of one client. A missing field means no limit. */
export interface Quotas {
  /** Handles on processes that have not ended. */
  handles?: number | undefined;
  parkedWaits?: number | undefined;
  /** WebSockets, event streams and followed output. */
  sockets?: number | undefined;
  /** The total number of handles that the sockets follow. */
  subscriptions?: number | undefined;
  connections?: number | undefined;
  spawnsPerSecond?: number | undefined;
  requestsPerSecond?: number | undefined;
  /** The total size of stored output in bytes. */
  outputBytes?: number | undefined;
  /** Terminals that are open. */
  terminals?: number | undefined;
}

const advice = {
  handles: 'Close some, or wait for some of their processes to end',
  parkedWaits: 'Wait for one to be answered, or use poll for many handles',
  sockets: 'Close one, or follow several handles on one socket',
  subscriptions: 'Unsubscribe from some handles',
  connections: 'Close one, or send several requests on each',
  outputBytes: 'Close handles whose output is no longer needed',
  terminals: 'End the programs on some of them',
};
const nouns = {
  handles: 'handles on live processes',
  parkedWaits: 'parked waits',
  sockets: 'sockets, event streams and followed outputs',
  subscriptions: 'handles followed by sockets',
  connections: 'connections',
  outputBytes: 'bytes of captured output',
  terminals: 'open terminals',
};

/**
 * A reserved part of a quota, returned when this is disposed of. Reserve before the first await, so that simultaneous requests cannot
 * use the same part.
 */
export class Reservation implements Disposable {
  #release: (() => void) | null;

  constructor(release: () => void) {
    this.#release = release;
  }

  [Symbol.dispose](): void {
    this.#release?.();
    this.#release = null;
  }
}

/** Checks a quota. @param wanted the total that the client would use @throws {Problem} EDQUOT if that exceeds the quota */
export function requireQuota(quotas: Quotas, what: keyof typeof nouns, wanted: number): void {
  const most = quotas[what];
  if (most === undefined || wanted <= most) return;
  throw new Problem('EDQUOT', `Your quota is ${most} ${nouns[what]}. ${advice[what]}.`, {
    retry: { afterMs: 1000 },
  });
}

/** A rate limit: a token bucket that holds one second's worth. */
export class Rate {
  readonly #what: string;
  #perSecond = Number.POSITIVE_INFINITY;
  #left = 0;
  #at = 0;

  /** @param what the plural noun for the error message */
  constructor(what: string) {
    this.#what = what;
  }

  /**
   * Takes one token.
   * @param perSecond the rate; `undefined` means no limit
   * @throws {Problem} EDQUOT if the bucket is empty, with the time until the next token
   */
  take(perSecond: number | undefined): void {
    const wait = this.tryTake(perSecond);
    if (wait === 0) return;
    throw new Problem('EDQUOT', `Your limit is ${perSecond} ${this.#what} per second. Send fewer.`, {
      retry: { afterMs: wait },
    });
  }

  /**
   * Takes one token, if there is one.
   * @param perSecond the rate; `undefined` means no limit
   * @returns 0, or the time in milliseconds until the next token
   */
  tryTake(perSecond: number | undefined): number {
    if (perSecond === undefined) return 0;
    const now = performance.now();
    const most = Math.max(1, perSecond);
    if (perSecond === this.#perSecond) this.#left = Math.min(most, this.#left + ((now - this.#at) * perSecond) / 1000);
    else {
      this.#perSecond = perSecond;
      this.#left = most;
    }
    this.#at = now;
    if (this.#left < 1) return Math.ceil(((1 - this.#left) * 1000) / perSecond);
    this.#left -= 1;
    return 0;
  }
}
