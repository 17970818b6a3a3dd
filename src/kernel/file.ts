import { isErrno } from './errno.ts';
import { bind, bindAside, checked } from './libc.ts';

const fallocate = bindAside('fallocate', 'int fallocate(int fd, int mode, long offset, long length)');
const lseek = bind('long lseek(int fd, long offset, int whence)');

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;

/**
 * Gives a part of a file back to its disk, on a thread of libuv's pool; offsets stay what they were, and it reads as zeros
 * (fallocate(2)).
 * @param offset and length in bytes; the disk takes whole blocks only
 * @throws {SystemError} EOPNOTSUPP where the file system cannot
 */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  await fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

/** The offset of the first byte that is no hole (lseek(2), SEEK_DATA); `null` where there is none. */
export function firstData(fd: number): number | null {
  try {
    return checked('lseek', lseek(fd, 0, SEEK_DATA));
  } catch (error) {
    if (isErrno(error, 'ENXIO')) return null;
    throw error;
  }
}
