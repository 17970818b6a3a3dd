import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { writeWhole } from '../files/write-whole.ts';

const CLIENT_NAME = /^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$/;
const SHORTEST_TOKEN = 16;

/** Who presents which bearer token. Only hashes are held, and compared in constant time. */
export class Tokens {
  readonly #entries: { hash: Buffer; client: string }[] = [];

  add(client: string, token: string): void {
    this.#entries.push({ hash: hash(token), client });
  }

  /** @returns `null` for a token that nobody has */
  clientOf(token: string): string | null {
    const presented = hash(token);
    let client: string | null = null;
    // Every entry is looked at, so that the time does not tell which one came close.
    for (const entry of this.#entries) if (timingSafeEqual(entry.hash, presented)) client = entry.client;
    return client;
  }
}

/**
 * Reads a tokens file: a line `client-name token` each, `#` for comments.
 * @throws {Error} where others than its owner may read it, or a line does not fit; never with a token in the text
 */
export function readTokens(path: string): Tokens {
  requirePrivate(path);
  const tokens = new Tokens();
  const seen = new Set<string>();
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const where = `${path}, line ${index + 1}`;
    const [client, token, ...rest] = text.split(/\s+/);
    if (client === undefined || token === undefined || rest.length > 0)
      throw new Error(`${where}: must be "client-name token"`);
    if (!CLIENT_NAME.test(client))
      throw new Error(`${where}: the client's name may hold letters, digits and . _ : @ -`);
    if (token.length < SHORTEST_TOKEN)
      throw new Error(`${where}: the token is shorter than ${SHORTEST_TOKEN} characters`);
    if (seen.has(token)) throw new Error(`${where}: this token was given to somebody else already`);
    seen.add(token);
    tokens.add(client, token);
  }
  return tokens;
}

/** The token that is made at first start and kept; it belongs to the daemon's own user. */
export function firstToken(path: string, client: string): Tokens {
  if (!existsSync(path)) writeWhole(path, `${randomBytes(32).toString('base64url')}\n`);
  requirePrivate(path);
  const tokens = new Tokens();
  tokens.add(client, readFileSync(path, 'utf8').trim());
  return tokens;
}

function requirePrivate(path: string): void {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) !== 0)
    throw new Error(
      `${path} has mode ${mode.toString(8).padStart(4, '0')}, so others can use its tokens: chmod 0600 it`,
    );
}

const hash = (token: string): Buffer => createHash('sha256').update(token).digest();
