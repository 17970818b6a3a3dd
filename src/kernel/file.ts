import { isErrno } from './errno.ts';
import { bind, bindAside, checked } from './libc.ts';

const fallocate = bindAside('fallocate', 'int fallocate(int fd, int mode, long offset, long length)');
const lseek = bind('long lseek(int fd, long offset, int whence)');

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;

/**
 * Frees the disk space of a part of a file, which then reads as zeros (fallocate(2), FALLOC_FL_PUNCH_HOLE). Offsets do not change.
 * Runs on a thread of libuv's pool.
 * @param offset in bytes
 * @param length in bytes; the file system frees only whole blocks
 * @throws {SystemError} EOPNOTSUPP if the file system has no holes
 */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  await fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

/**
 * Finds the first byte after a leading hole (lseek(2), SEEK_DATA).
 * @returns its offset in bytes, or `null` if the file has no data
 */
export function firstData(fd: number): number | null {
  try {
    return checked('lseek', lseek(fd, 0, SEEK_DATA));
  } catch (error) {
    if (isErrno(error, 'ENXIO')) return null;
    throw error;
  }
}
