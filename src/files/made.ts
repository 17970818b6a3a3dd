import { chmodSync, mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/** What a start has made so far. Disposing of it removes all of that, the newest first. */
export type Made = DisposableStack;

/**
 * Makes a directory and those above it that are missing.
 * @param mode of those, whatever the umask
 * @throws {Error} of mkdir(2); ENOTDIR also where the path is a file
 */
export function makeDirectory(path: string, mode: number, made: Made): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isDirectory()) return;
  if (stats !== undefined) throw Object.assign(new Error('ENOTDIR'), { code: 'ENOTDIR', syscall: 'mkdir', path });
  // One by one: where the first cannot be made, the recursive mkdir of Node.js says ENOENT, whatever the kernel said.
  makeDirectory(dirname(path), mode, made);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Another daemon may have made it in the meantime.
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    throw error;
  }
  made.defer(() => removeEmpty(path));
  chmodSync(path, mode);
}

/** One that another process has put something into stays. */
function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // ENOTEMPTY
  }
}

/** A file, told from a later one of the same path. The kernel gives its inode to no other while a socket is bound to it. */
export interface SocketFile {
  path: string;
  /** Device and inode. */
  id: string;
}

/** @throws {Error} ENOENT */
export function identify(path: string): SocketFile {
  const { dev, ino } = statSync(path, { bigint: true });
  return { path, id: `${dev}:${ino}` };
}

/** Removes a socket file unless another daemon has put its own there since. */
export function removeSocketFile({ path, id }: SocketFile): void {
  try {
    if (identify(path).id === id) rmSync(path);
  } catch {
    // It was removed before, or its directory may not be written to any more.
  }
}
