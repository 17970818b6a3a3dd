import { constants } from 'node:os';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

// The same number on every architecture. Declared with the pointers that this call takes.
const SYS_openat2 = 437;
const openat2 = bind('long syscall(long number, int directory, const char *path, void *how, long size)');
const AT_FDCWD = -100;
const O_CLOEXEC = 0o2000000; // Node does not list it
const RESOLVE_NO_SYMLINKS = 0x04;
const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve, 64 bits each

const fallocate = bind('int fallocate(int fd, int mode, long offset, long length)');
const lseek = bind('long lseek(int fd, long offset, int whence)');
const fcntl = bind('int fcntl(int fd, int command, long argument)');

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;
const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_RDLCK = 0;
const F_UNLCK = 2;

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
 * Gives a part of a file back to its disk; offsets stay what they were, and it reads as zeros (fallocate(2)).
 * @param offset and length in bytes; the disk takes whole blocks only
 * @throws {SystemError} EOPNOTSUPP where the file system cannot
 */
export function punchHole(fd: number, offset: number, length: number): void {
  checked('fallocate', fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
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

/**
 * Whether anybody has the file open for writing. The kernel grants a read lease only on a file that nobody writes to
 * (fcntl(2), F_SETLEASE), so it is asked for one, which is given back at once.
 * @param fd opened for reading only, on a file that is ours
 * @returns false, too, where the file system cannot tell
 */
export function hasWriters(fd: number): boolean {
  // Whoever opens it in this very moment makes the kernel signal us; SIGIO would end the process, SIGURG is ignored.
  checked('fcntl', fcntl(fd, F_SETSIG, constants.signals.SIGURG));
  try {
    checked('fcntl', fcntl(fd, F_SETLEASE, F_RDLCK));
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return true;
    if (isErrno(error, 'EINVAL', 'EOPNOTSUPP')) return false; // a file system without leases, such as NFS
    throw error;
  }
  checked('fcntl', fcntl(fd, F_SETLEASE, F_UNLCK));
  return false;
}
