import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readRegular } from '../files/read-regular.ts';
import { requirePrivate } from '../files/require-private.ts';
import { writeWhole } from '../files/write-whole.ts';

/** A certificate's name may hold whatever a URI may. */
export const CLIENT_NAME = /^(?:cert:[\x21-\x7e]{1,255}|[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127})$/;
export const TOKEN_HASH = /^sha256:[0-9a-fA-F]{64}$/;
const SHORTEST_TOKEN = 16;

/** Who presents which bearer token. Only hashes are held, and compared in constant time. */
export class Tokens {
  readonly #entries: { hash: Buffer; client: string }[] = [];

  /** @param hash SHA-256 of the token, in hexadecimal */
  add(client: string, hash: string): void {
    this.#entries.push({ hash: Buffer.from(hash, 'hex'), client });
  }

  /** @returns `null` for the hash of a token that nobody has */
  clientOf(hash: string): string | null {
    const presented = Buffer.from(hash, 'hex');
    let client: string | null = null;
    // Every entry is looked at, so that the time does not tell which one came close.
    for (const entry of this.#entries) if (timingSafeEqual(entry.hash, presented)) client = entry.client;
    return client;
  }
}

/** What is kept of a token: its text has 128 random bits or more, so a plain hash tells nothing of it. */
export function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

export function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/**
 * Reads a tokens file: a line `client-name token` or `client-name sha256:hash` each, `#` for comments.
 * @throws {Error} where others than its owner may read it, or a line does not fit; never with a token in the text
 */
export function readTokens(path: string): Tokens {
  requirePrivate(path, 'tokens');
  const tokens = new Tokens();
  const seen = new Set<string>();
  for (const [index, line] of readRegular(path).split('\n').entries()) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const where = `${path}, line ${index + 1}`;
    const [client, token, ...rest] = text.split(/\s+/);
    if (client === undefined || token === undefined || rest.length > 0)
      throw new Error(`${where}: must be "client-name token"`);
    if (!CLIENT_NAME.test(client))
      throw new Error(`${where}: the client's name may hold letters, digits and . _ : @ / -`);
    if (token.startsWith('sha256:') && !TOKEN_HASH.test(token))
      throw new Error(`${where}: a hash is sha256: and 64 hexadecimal digits`);
    if (token.length < SHORTEST_TOKEN)
      throw new Error(`${where}: the token is shorter than ${SHORTEST_TOKEN} characters`);
    const hash = TOKEN_HASH.test(token) ? token.slice('sha256:'.length).toLowerCase() : hashOf(token);
    if (seen.has(hash)) throw new Error(`${where}: this token was given to somebody else already`);
    seen.add(hash);
    tokens.add(client, hash);
  }
  return tokens;
}

/** The token that is made at first start and kept; it belongs to the daemon's own user. */
export function firstToken(path: string, client: string): Tokens {
  if (!existsSync(path)) writeWhole(path, `${newToken()}\n`);
  requirePrivate(path, 'tokens');
  const token = readRegular(path).trim();
  if (token.length < SHORTEST_TOKEN)
    throw new Error(`${path} is damaged: restore it, or remove it, after which there is a new token`);
  const tokens = new Tokens();
  tokens.add(client, hashOf(token));
  return tokens;
}
