import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';

const NONCE = 12;
const SEAL = 9;

/**
 * Ids of handles, which nobody guesses, and of which the daemon can tell for ever whether it gave one to a client: an expired
 * handle is told apart from one that never was, and no record of it is kept.
 */
export class HandleIds {
  readonly #key: KeyObject;

  /** @param key this node's own, kept as long as its journal */
  constructor(key: Buffer) {
    // Made once: of bytes Node makes one for each use, and that costs more than the rest.
    this.#key = createSecretKey(key);
  }

  make(client: string): string {
    const nonce = randomBytes(NONCE);
    return `h_${Buffer.concat([nonce, this.#seal(client, nonce)]).toString('base64url')}`;
  }

  /** Whether this node once gave the id to this client: the seal tells, and it takes as long for another client's id as for none. */
  isOurs(client: string, id: string): boolean {
    const bytes = Buffer.from(id.slice(2), 'base64url');
    if (bytes.length !== NONCE + SEAL || id !== `h_${bytes.toString('base64url')}`) return false;
    return timingSafeEqual(bytes.subarray(NONCE), this.#seal(client, bytes.subarray(0, NONCE)));
  }

  /** False for the ids of the first journals, of which only the journal tells whose they are. */
  isSealed(id: string): boolean {
    return Buffer.from(id.slice(2), 'base64url').length === NONCE + SEAL;
  }

  #seal(client: string, nonce: Buffer): Buffer {
    return createHmac('sha256', this.#key).update(nonce).update(client).digest().subarray(0, SEAL);
  }
}
