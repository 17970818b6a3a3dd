import { isErrno } from './errno.ts';
import { bind, bindAside, checked } from './libc.ts';

// The same number on every architecture. Declared with the pointers that this call takes.
const SYS_openat2 = 437;
const openat2 = bind('long syscall(long number, int directory, const char *path, void *how, long size)');
const AT_FDCWD = -100;
const O_CLOEXEC = 0o2000000; // Node does not list it
const RESOLVE_NO_SYMLINKS = 0x04;
const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve, 64 bits each

const fallocate = bindAside('fallocate', 'int fallocate(int fd, int mode, long offset, long length)');
const lseek = bind('long lseek(int fd, long offset, int whence)');

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;

/**
 * Opens a path of which no part may be a symbolic link (openat2(2), 5.6), close-on-exec.
 * @throws {SystemError} ELOOP where one is
 */
export function openLiterally(path: string, flags: number, mode: number): number {
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(mode), 8);
  how.writeBigUInt64LE(BigInt(RESOLVE_NO_SYMLINKS), 16);
  return checked('openat2', openat2(SYS_openat2, AT_FDCWD, path, how, how.length));
}

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
