import { renameSync, writeFileSync } from 'node:fs';

/**
 * Writes a private file (mode 0600) atomically, by rename(2): after a crash the file is either complete or unchanged.
 * @throws {Error} from the file system
 */
export function writeWhole(path: string, text: string): void {
  const beside = `${path}.new`;
  writeFileSync(beside, text, { mode: 0o600, flush: true });
  renameSync(beside, path);
}
