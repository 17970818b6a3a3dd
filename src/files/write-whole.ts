import { renameSync, writeFileSync } from 'node:fs';

/**
 * Makes a private file that is there whole or not at all, whenever the daemon dies.
 * @throws {Error} of the file system
 */
export function writeWhole(path: string, text: string): void {
  const beside = `${path}.new`;
  writeFileSync(beside, text, { mode: 0o600, flush: true });
  renameSync(beside, path);
}
