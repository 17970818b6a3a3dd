import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readRegular } from '../files/read-regular.ts';
import { requirePrivate } from '../files/require-private.ts';
import { writeWhole } from '../files/write-whole.ts';

/** A client name. The name from a certificate may contain any character of a URI. */
export const CLIENT_NAME = /^(?:cert:[\x21-\x7e]{1,255}|[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127})$/;
export const TOKEN_HASH = /^sha256:[0-9a-fA-F]{64}$/;
const SHORTEST_TOKEN = 16;

/** Maps bearer tokens to clients. Stores only hashes, and compares them in constant time. */
export class Tokens {
  readonly #entries: { hash: Buffer; client: string }[] = [];

  /** @param hash SHA-256 of the token, in hexadecimal */
  add(client: string, hash: string): void {
    this.#entries.push({ hash: Buffer.from(hash, 'hex'), client });
  }

  /** Finds the client of a token's hash. @returns `null` if the token is unknown */
  clientOf(hash: string): string | null {
    const presented = Buffer.from(hash, 'hex');
    let client: string | null = null;
    // Compares every entry, so that the time does not depend on which one matches.
    for (const entry of this.#entries) if (timingSafeEqual(entry.hash, presented)) client = entry.client;
    return client;
  }
}

/** Hashes a token. A plain hash is safe, because a token has at least 128 random bits. @returns SHA-256 in hexadecimal */
export function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Generates a token of 256 random bits, in base64url. */
export function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/**
 * Reads a tokens file. Each line is `client-name token` or `client-name sha256:hash`; `#` begins a comment.
 * @throws {Error} if other users may read the file, or if a line is not valid. The message never contains a token.
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
    if (!CLIENT_NAME.test(client)) throw new Error(`${where}: a client name has letters, digits and . _ : @ / - only`);
    if (token.startsWith('sha256:') && !TOKEN_HASH.test(token))
      throw new Error(`${where}: a hash is sha256: followed by 64 hexadecimal digits`);
    if (token.length < SHORTEST_TOKEN)
      throw new Error(`${where}: the token is shorter than ${SHORTEST_TOKEN} characters`);
    const hash = TOKEN_HASH.test(token) ? token.slice('sha256:'.length).toLowerCase() : hashOf(token);
    if (seen.has(hash)) throw new Error(`${where}: another line has the same token`);
    seen.add(hash);
    tokens.add(client, hash);
  }
  return tokens;
}

/**
 * Reads the token of the daemon's own user, and creates it at the first start.
 * @throws {Error} if other users may read the file, or if it is damaged
 */
export function firstToken(path: string, client: string): Tokens {
  if (!existsSync(path)) writeWhole(path, `${newToken()}\n`);
  requirePrivate(path, 'tokens');
  const token = readRegular(path).trim();
  if (token.length < SHORTEST_TOKEN)
    throw new Error(`${path} is damaged: restore it, or remove it to have a new token created`);
  const tokens = new Tokens();
  tokens.add(client, hashOf(token));
  return tokens;
}
