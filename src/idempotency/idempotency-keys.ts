import { createHmac } from 'node:crypto';
import type { Caller } from '../clients/caller.ts';
import { Problem } from '../errors/problem.ts';
import type { StoredKey } from '../journal/change.ts';
import type { Journal } from '../journal/journal.ts';

/** A longer answer is not stored, in characters. A retry is answered with what the request made; it is still done once. */
const LONGEST_ANSWER = 2 ** 20;

/** When to retry if too many keys are kept, in milliseconds. Keys are kept for a day. */
const RETRY_MS = 60_000;

/** An answer that is replayed word for word. */
export interface Answer {
  status: number;
  location?: string | undefined;
  body: string;
}

export interface KeyedRequest {
  client: string;
  key: string;
  /** A hash of the request. The same key with another request is refused. */
  fingerprint: string;
}

/** The claim of one request on its key, from before it does anything until it is answered. */
export class Claim {
  /** The handle that an earlier try made before the daemon died, or that {@link keep} is given; `null` if there is none. */
  handle: string | null;
  /** The body to store, if it is not the one that is sent: captured output is left out, and read again for a repetition. */
  body: string | null = null;
  /** Resolves when the request is answered, or the key is free again. */
  readonly over: Promise<void>;
  readonly #facts: KeyedRequest;
  readonly #end: () => void;
  #holds = 0;
  #isEnded = false;

  constructor(facts: KeyedRequest, handle: string | null) {
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
   * Returns the key as it is to be stored, best in the same transaction as what the request does.
   * @param handle the handle that the answer is about
   * @param answer `null` if it is not known yet
   */
  keep(handle: string, answer: Answer | null): StoredKey {
    this.handle = handle;
    const text = answer && JSON.stringify(answer);
    return { ...this.#facts, handle, answer: text !== null && text.length > LONGEST_ANSWER ? null : text };
  }

  /**
   * Puts off the end of the claim while the request acts: what it does goes on when its caller disconnects.
   * @returns to be disposed of once {@link keep} has been called, or nothing was done
   */
  hold(): Disposable {
    this.#holds += 1;
    return {
      [Symbol.dispose]: () => {
        this.#holds -= 1;
        if (this.#isEnded) this.end();
      },
    };
  }

  end(): void {
    this.#isEnded = true;
    if (this.#holds === 0) this.#end();
  }
}

/** A request with the key of one that is in flight. */
interface Waiting {
  /** Hands it the answer, or the claim that is free again. */
  resolve(outcome: Answer | Claim | 'aborted'): void;
  refuse(problem: Problem): void;
}

interface Underway {
  claim: Claim;
  /** In the order in which they came. */
  waiting: Set<Waiting>;
}

/** Makes requests with a key happen once, however often they are sent (draft-ietf-httpapi-idempotency-key-header). */
export class IdempotencyKeys {
  readonly #journal: Journal;
  readonly #most: number;
  readonly #underway = new Map<string, Underway>();
  /** How many requests in flight each client has. */
  readonly #underwayOf = new Map<string, number>();
  #waiting = 0;
  #closed: Problem | null = null;

  /** @param most how many keys are kept; every whole KiB of an answer counts as one more */
  constructor(journal: Journal, most: number) {
    this.#journal = journal;
    this.#most = most;
  }

  /** How many requests wait for the answer to an earlier one. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Returns the hash of a request. It needs the node's key, so that a short secret in the body cannot be guessed from it. */
  fingerprintOf(request: string): string {
    return createHmac('sha256', this.#journal.identity.key).update(request).digest('base64url');
  }

  /**
   * Begins a request with a key. While an earlier one with that key is in flight, it waits for its answer, and counts as parked.
   * @returns the answer to replay, or the claim under which the request is to be done
   * @throws {Problem} EINVAL, 422, if the key was used for another request; EDQUOT, also if too many keys are kept; ESHUTDOWN when the
   *   daemon stops
   */
  async claim(facts: KeyedRequest, caller: Caller): Promise<Answer | Claim | 'aborted'> {
    const name = `${facts.client}\n${facts.key}`;
    if (caller.abortSignal.aborted) return 'aborted';
    const underway = this.#underway.get(name);
    if (underway !== undefined) {
      requireSame(facts, underway.claim.fingerprint);
      return this.#wait(underway.waiting, caller);
    }
    const stored = this.#journal.queries.key(facts.client, facts.key);
    if (stored !== null) requireSame(facts, stored.fingerprint);
    if (stored?.answer != null) return JSON.parse(stored.answer) as Answer;
    if (stored === null) this.#requireRoom(facts.client);
    return this.#begin(name, facts, stored, new Set());
  }

  #begin(name: string, facts: KeyedRequest, stored: StoredKey | null, waiting: Set<Waiting>): Claim {
    const claim = new Claim(facts, stored?.handle ?? null);
    const begun: Underway = { claim, waiting };
    this.#underway.set(name, begun);
    this.#count(facts.client, 1);
    void claim.over.then(() => this.#passOn(name, facts, begun));
    return claim;
  }

  #wait(waiting: Set<Waiting>, { client, abortSignal }: Caller): Promise<Answer | Claim | 'aborted'> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    const reservation = client?.reserve('parkedWaits');
    const { promise, resolve, reject } = Promise.withResolvers<Answer | Claim | 'aborted'>();
    const leave = (): void => {
      reservation?.[Symbol.dispose]();
      abortSignal.removeEventListener('abort', onAbort);
      waiting.delete(one);
      this.#waiting -= 1;
    };
    const one: Waiting = {
      resolve: (outcome) => {
        leave();
        resolve(outcome);
      },
      refuse: (problem) => {
        leave();
        reject(problem);
      },
    };
    const onAbort = (): void => one.resolve('aborted');
    abortSignal.addEventListener('abort', onAbort);
    waiting.add(one);
    this.#waiting += 1;
    return promise;
  }

  /** Hands the answer to all that wait for it. Without an answer the first of them gets the claim: to wake all would be quadratic. */
  #passOn(name: string, facts: KeyedRequest, underway: Underway): void {
    const { waiting } = underway;
    this.#underway.delete(name);
    this.#count(facts.client, -1);
    if (waiting.size === 0) return;
    const stored = this.#journal.queries.key(facts.client, facts.key);
    if (stored?.answer != null) {
      const answer = JSON.parse(stored.answer) as Answer;
      for (const one of waiting) one.resolve(answer);
      return;
    }
    const [next] = waiting;
    next!.resolve(this.#begin(name, facts, stored, waiting));
  }

  /** Refuses all that wait, and later ones. */
  close(problem: Problem): void {
    this.#closed = problem;
    for (const { waiting } of this.#underway.values()) for (const one of waiting) one.refuse(problem);
  }

  #count(client: string, change: 1 | -1): void {
    const count = (this.#underwayOf.get(client) ?? 0) + change;
    if (count === 0) this.#underwayOf.delete(client);
    else this.#underwayOf.set(client, count);
  }

  /** Requires room for another key. One client may use half of them, so that the others have the rest. */
  #requireRoom(client: string): void {
    const { own, all } = this.#journal.queries.keyUnits(client);
    const mine = own + (this.#underwayOf.get(client) ?? 0);
    if (mine < this.#most / 2 && all + this.#underway.size < this.#most) return;
    const whose = mine < this.#most / 2 ? 'of all clients' : 'of yours';
    const detail = `Too many idempotency keys ${whose} are kept: send the request without one, or after a day, when the oldest expire.`;
    throw new Problem('EDQUOT', detail, { retry: { afterMs: RETRY_MS } });
  }

  /** Stores the answer of a request that has done something, and ends its claim. */
  complete(claim: Claim, handle: string, answer: Answer): void {
    this.#journal.commit([{ write: 'key', key: claim.keep(handle, answer) }]);
    claim.end();
  }
}

function requireSame({ fingerprint }: KeyedRequest, earlier: string): void {
  if (fingerprint === earlier) return;
  const detail = 'This Idempotency-Key was used for another request: give each request a key of its own.';
  throw new Problem('EINVAL', detail, { status: 422 });
}
