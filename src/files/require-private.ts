import { statSync } from 'node:fs';

/**
 * @param secret what the file holds, for the sentence
 * @throws {Error} where others than its owner may read or write it
 */
export function requirePrivate(path: string, secret: 'tokens' | 'key'): void {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) !== 0)
    throw new Error(
      `${path} has mode ${mode.toString(8).padStart(4, '0')}, so others can use its ${secret}: chmod 0600 it`,
    );
}
