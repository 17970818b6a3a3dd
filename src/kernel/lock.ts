import { openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

const flock = bind('int flock(int fd, int operation)');
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * An exclusive flock(2) on a file or directory that exists. The kernel gives it up with the descriptor, however we end.
 * @returns the lock, or `null` where another process holds it
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
