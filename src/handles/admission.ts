import type { Client } from '../clients/client.ts';
import { type Reservation, requireQuota } from '../clients/quotas.ts';
import type { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { HandleTable } from './handle-table.ts';
import { unwritable } from './refusals.ts';

/** Decides whether another handle may be made at all. */
export class Admission {
  readonly #journal: Journal;
  readonly #table: HandleTable;
  #refusal: Problem | null = null;

  constructor(journal: Journal, table: HandleTable) {
    this.#journal = journal;
    this.#table = table;
  }

  /** Refuses every new handle from now on, with this problem. */
  close(problem: Problem): void {
    this.#refusal = problem;
  }

  /** @throws {Problem} ESHUTDOWN once it is closed */
  requireOpen(): void {
    if (this.#refusal !== null) throw this.#refusal;
  }

  /**
   * Requires that a handle can be written, and that its client may have it.
   * @param client `null` if the handle does not count against a quota
   * @throws {Problem} ESHUTDOWN, EDQUOT; ENOSPC or ENOENT if the journal cannot be written
   */
  require(syscall: string, client: Client | null): void {
    this.requireOpen();
    if (client !== null) requireQuota(client.quotas, 'handles', this.#table.countOf(client.name) + 1);
    const fault = this.#journal.check();
    if (fault !== null) throw unwritable(fault, syscall);
  }

  /** Does the same, and reserves the client's place for the handle until that exists. */
  reserve(syscall: string, client: Client): Reservation {
    this.require(syscall, client);
    return this.#table.reserve(client.name);
  }
}
