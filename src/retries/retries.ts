import { createHmac } from 'node:crypto';
import { Problem } from '../errors/problem.ts';
import type { Journal, StoredKey } from '../journal/journal.ts';

/** An answer that is given again, word for word. */
export interface Answer {
  status: number;
  location?: string | undefined;
  body: string;
}

export interface RetryFacts {
  client: string;
  key: string;
  /** What the request was: the same key with another one is refused. */
  fingerprint: string;
}

/** One request's hold on its key, from before it does anything until it is answered. */
export class Claim {
  /** What an earlier try made, where the daemon died before it could answer; set by {@link keep}. */
  handle: string | null;
  /** Resolves when it is over: answered, or free again. */
  readonly over: Promise<void>;
  readonly #facts: RetryFacts;
  readonly #end: () => void;

  constructor(facts: RetryFacts, handle: string | null) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#facts = facts;
    this.handle = handle;
    this.over = promise;
    this.#end = resolve;
  }

  get fingerprint(): string {
    return this.#facts.fingerprint;
  }

  /**
   * What is to be written, best in the same transaction as what was done.
   * @param handle the one it goes with
   * @param answer `null` where it is not known yet
   */
  keep(handle: string, answer: Answer | null): StoredKey {
    this.handle = handle;
    return { ...this.#facts, handle, answer: answer && JSON.stringify(answer) };
  }

  end(): void {
    this.#end();
  }
}

/** Requests that may be sent again and are done once (draft-ietf-httpapi-idempotency-key-header). */
export class Retries {
  readonly #journal: Journal;
  readonly #underway = new Map<string, Claim>();

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** What is kept of a request. Without the node's key nobody can try what its body was: it may hold secrets that are short. */
  fingerprintOf(request: string): string {
    return createHmac('sha256', this.#journal.identity.key).update(request).digest('base64url');
  }

  /**
   * Begins a request that bears a key. While an earlier one with that key is under way, it waits for that one's answer.
   * @returns the answer to give again, or the claim under which the request is to be done
   * @throws {Problem} EINVAL, 422, where the key was another request's
   */
  async claim(facts: RetryFacts, gone: AbortSignal): Promise<Answer | Claim | 'gone'> {
    const name = `${facts.client}\n${facts.key}`;
    for (;;) {
      if (gone.aborted) return 'gone';
      const underway = this.#underway.get(name);
      if (underway !== undefined) {
        requireSame(facts, underway.fingerprint);
        await settled(underway.over, gone);
        continue;
      }
      const stored = this.#journal.key(facts.client, facts.key);
      if (stored !== null) requireSame(facts, stored.fingerprint);
      if (stored?.answer != null) return JSON.parse(stored.answer) as Answer;
      const claim = new Claim(facts, stored?.handle ?? null);
      this.#underway.set(name, claim);
      void claim.over.then(() => this.#underway.delete(name));
      return claim;
    }
  }

  /** Writes the answer of something that was done. */
  settle(claim: Claim, handle: string, answer: Answer): void {
    this.#journal.commit([{ write: 'key', key: claim.keep(handle, answer) }]);
    claim.end();
  }
}

function requireSame({ fingerprint }: RetryFacts, earlier: string): void {
  if (fingerprint === earlier) return;
  const detail = 'This Idempotency-Key was used for another request: give each request a key of its own.';
  throw new Problem('EINVAL', detail, { status: 422 });
}

function settled(over: Promise<void>, gone: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  gone.addEventListener('abort', () => resolve(), { once: true });
  void over.then(resolve);
  return promise;
}
