import { statSync } from 'node:fs';

/**
 * Refuses a file of secrets that users other than its owner may read or write.
 * @param secret names the file's content in the error message
 * @throws {Error} if the mode gives access to the group or to others
 */
export function requirePrivate(path: string, secret: 'tokens' | 'key'): void {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) !== 0)
    throw new Error(
      `${path} has mode ${mode.toString(8).padStart(4, '0')}, so other users can read its ${secret}: chmod 0600 it`,
    );
}
