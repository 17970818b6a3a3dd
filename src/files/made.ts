import { chmodSync, mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/** The files and directories that a start has created so far. Disposing of it removes them, newest first. */
export type Made = DisposableStack;

/**
 * Creates a directory and its missing parents.
 * @param mode the mode of each created directory, independent of the umask
 * @param made records the created directories
 * @throws {Error} from mkdir(2); ENOTDIR also if the path is a file
 */
export function makeDirectory(path: string, mode: number, made: Made): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isDirectory()) return;
  if (stats !== undefined) throw Object.assign(new Error('ENOTDIR'), { code: 'ENOTDIR', syscall: 'mkdir', path });
  // One by one, because the recursive mkdir of Node.js reports ENOENT for any error on the first directory.
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

/** Removes a directory unless another process has put a file into it. */
function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // ENOTEMPTY
  }
}

/** A socket file, identified by path and inode. The kernel does not reuse the inode while a socket is bound to it. */
export interface SocketFile {
  path: string;
  /** Device and inode. */
  id: string;
}

/** Records the identity of the socket file at a path. @throws {Error} ENOENT */
export function identify(path: string): SocketFile {
  const { dev, ino } = statSync(path, { bigint: true });
  return { path, id: `${dev}:${ino}` };
}

/** Removes a socket file, unless another daemon has replaced it. */
export function removeSocketFile({ path, id }: SocketFile): void {
  try {
    if (identify(path).id === id) rmSync(path);
  } catch {
    // The file was removed before, or the daemon may no longer write to its directory.
  }
}
