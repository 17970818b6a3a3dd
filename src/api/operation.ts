import type { Caller } from '../clients/caller.ts';
import type { Client } from '../clients/client.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';

/**
 * What the audit records of a call beside the client, the operation and the result. Arguments, variables and labels do not belong here:
 * they may be secrets.
 */
export type AuditFacts = Record<string, string | number | boolean | null | undefined>;

/** One call of an operation, whichever transport brings it. */
export interface Call extends Caller {
  readonly client: Client;
  /** The claim of a call that may be repeated; see {@link Rules.acts}. */
  readonly claim: Claim | undefined;
  /** Adds facts for the audit. */
  note(facts: AuditFacts): void;
}

/** What a transport applies around an operation. The rate limit of the client's quota holds for every call. */
export interface Rules {
  /**
   * The operation's name in the audit, where it is audited. Where the name depends on the input: the members of the input, each of which
   * names what it asks for.
   */
  readonly audit?: string | readonly string[];
  /** Whether a success changes something, so that a call repeated with the same key gets the same answer again. */
  readonly acts?: boolean;
  /**
   * Refuses what this client may not do at all. A transport calls it before it checks the input, so that a client without rights cannot
   * have the daemon work through a long one.
   * @throws {Problem} EPERM
   */
  permit?(client: Client, input: unknown): void;
}

/**
 * One verb of the contract: its rules, and what it does. Input is checked by its schema before.
 * A result of `'aborted'` means that the caller left, so that nobody reads an answer.
 */
export interface Operation<Input, Result> extends Rules {
  run(call: Call, input: Input): Result;
}
