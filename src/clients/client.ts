import { Problem } from '../errors/problem.ts';
import { Semaphore } from '../model/semaphore.ts';
import type { Quotas } from './quotas.ts';
import { Rate, Reservation, requireQuota } from './quotas.ts';
import type { Rights } from './rights.ts';

/** The quotas that a client uses up while it holds a {@link Reservation}. */
type Counted = 'parkedWaits' | 'sockets' | 'subscriptions' | 'connections';

/** The answers with captured output that the daemon holds for a client at a time. Each may take several MiB. */
const MOST_OUTPUT_ANSWERS = 4;

/** A client: one object for each name, with its current rights and quotas and with what it uses. */
export class Client {
  readonly name: string;
  rights: Rights;
  quotas: Quotas;
  readonly requests = new Rate('requests');
  readonly spawns = new Rate('spawns');
  readonly outputAnswers = new Semaphore(MOST_OUTPUT_ANSWERS);
  readonly #used: Record<Counted, number> = { parkedWaits: 0, sockets: 0, subscriptions: 0, connections: 0 };

  constructor(name: string, rights: Rights, quotas: Quotas) {
    this.name = name;
    this.rights = rights;
    this.quotas = quotas;
  }

  /** Whether the client sees the handles of other clients. */
  get seesAll(): boolean {
    return this.rights.observe || this.rights.admin;
  }

  /** Checks a quota without reserving. @throws {Problem} EDQUOT if `more` exceeds what is left */
  requireRoom(what: Counted, more = 1): void {
    requireQuota(this.quotas, what, this.#used[what] + more);
  }

  /**
   * Reserves a part of a quota.
   * @returns the reservation; dispose of it to return the part
   * @throws {Problem} EDQUOT if the count exceeds what is left
   */
  reserve(what: Counted, count = 1): Reservation {
    this.requireRoom(what, count);
    this.#used[what] += count;
    return new Reservation(() => {
      this.#used[what] -= count;
    });
  }

  /** The client whose handles it sees: itself, or `null` for those of every client. */
  get scope(): string | null {
    return this.seesAll ? null : this.name;
  }
}

/** Builds the problem of a missing right. @param what completes "The policy does not let you …" */
export function notAllowed(what: string): Problem {
  return new Problem('EPERM', `The policy does not let you ${what}. Ask the operator of this daemon.`);
}
