import { Problem } from '../errors/problem.ts';
import type { Quotas } from './quotas.ts';
import { Rate, Reservation, requireQuota } from './quotas.ts';
import type { Rights } from './rights.ts';

/** What a client may have only so many of, and what it has of them. */
type Counted = 'parkedWaits' | 'sockets' | 'subscriptions' | 'connections';

/** Who is asking: one for each name, with what the policy gives it now and what it uses. */
export class Client {
  readonly name: string;
  rights: Rights;
  quotas: Quotas;
  readonly requests = new Rate('requests');
  readonly spawns = new Rate('spawns');
  readonly #has: Record<Counted, number> = { parkedWaits: 0, sockets: 0, subscriptions: 0, connections: 0 };

  constructor(name: string, rights: Rights, quotas: Quotas) {
    this.name = name;
    this.rights = rights;
    this.quotas = quotas;
  }

  /** Whether other clients' handles are there for it too. */
  get seesAll(): boolean {
    return this.rights.observe || this.rights.admin;
  }

  /** @throws {Problem} EDQUOT where it may not have so many more */
  requireRoom(what: Counted, more = 1): void {
    requireQuota(this.quotas, what, this.#has[what] + more);
  }

  /**
   * Takes places of a quota.
   * @throws {Problem} EDQUOT where it may not have so many more
   */
  reserve(what: Counted, count = 1): Reservation {
    this.requireRoom(what, count);
    this.#has[what] += count;
    return new Reservation(() => {
      this.#has[what] -= count;
    });
  }

  /** Whose handles are there for it: its own, or with `null` everybody's. */
  get scope(): string | null {
    return this.seesAll ? null : this.name;
  }
}

/** @param what completes "The policy does not let you …" */
export function notAllowed(what: string): Problem {
  return new Problem('EPERM', `The policy does not let you ${what}: ask whoever runs this daemon.`);
}
