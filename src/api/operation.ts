import type { Caller } from '../clients/caller.ts';
import type { Client } from '../clients/client.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';

/**
 * Facts that the audit records of a call besides client, operation and result. Arguments, variables and labels must not be among them,
 * because they may be secrets.
 */
export type AuditFacts = Record<string, string | number | boolean | null | undefined>;

/** One call of an operation, whichever transport brings it. */
export interface Call extends Caller {
  readonly client: Client;
  /** The claim of a call that may be repeated; see {@link Rules.acts}. */
  readonly claim: Claim | undefined;
  /** Adds facts for the audit. */
  note(facts: AuditFacts): void;
  /** Resolves when the answer has been sent, or the caller has disconnected. */
  answered(): Promise<void>;
}

/** The rules that a transport applies around an operation. The client's rate limit applies to every call. */
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
 * One verb of the contract: its rules and its function. The transport checks the input by its schema before.
 * The result `'aborted'` means that the caller has disconnected, so no answer is read.
 */
export interface Operation<Input, Result> extends Rules {
  run(call: Call, input: Input): Result;
}
