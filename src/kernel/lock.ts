import { openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

const flock = bind('int flock(int fd, int operation)');
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes an exclusive flock(2) on an existing file or directory. The kernel releases it when the process ends, even by a crash.
 * @returns the descriptor that holds the lock, or `null` if another process holds it
 * @throws {Error} from Node.js if the path cannot be opened
 */
export function tryLock(path: string): Descriptor | null {
  const descriptor = new Descriptor(openSync(path, 'r'));
  try {
    checked('flock', flock(descriptor.fd, LOCK_EX | LOCK_NB));
    return descriptor;
  } catch (error) {
    descriptor.close();
    if (isErrno(error, 'EAGAIN')) return null;
    throw error;
  }
}
