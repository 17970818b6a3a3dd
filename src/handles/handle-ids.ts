import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';

const NONCE = 12;
const SEAL = 9;

/**
 * Ids of handles. They cannot be guessed, and the daemon recognises for ever whether it gave one to a client. So it
 * distinguishes an expired handle from one that never existed, without a record of it.
 */
export class HandleIds {
  readonly #key: KeyObject;

  /** @param key this node's secret, which lives as long as its journal */
  constructor(key: Buffer) {
    // Made once: given bytes, Node makes a key object for each use, which costs more than the rest.
    this.#key = createSecretKey(key);
  }

  make(client: string): string {
    const nonce = randomBytes(NONCE);
    return `h_${Buffer.concat([nonce, this.#seal(client, nonce)]).toString('base64url')}`;
  }

  /** Returns whether this node gave the id to this client. It takes as long for another client's id as for none. */
  isOurs(client: string, id: string): boolean {
    const bytes = Buffer.from(id.slice(2), 'base64url');
    if (bytes.length !== NONCE + SEAL || id !== `h_${bytes.toString('base64url')}`) return false;
    return timingSafeEqual(bytes.subarray(NONCE), this.#seal(client, bytes.subarray(0, NONCE)));
  }

  /** Returns whether an id shows its client. The first journals had ids that do not. */
  isSealed(id: string): boolean {
    return Buffer.from(id.slice(2), 'base64url').length === NONCE + SEAL;
  }

  #seal(client: string, nonce: Buffer): Buffer {
    return createHmac('sha256', this.#key).update(nonce).update(client).digest().subarray(0, SEAL);
  }
}
