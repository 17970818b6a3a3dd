import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';
import { SystemError } from './errno.ts';
import { bind, byArchitecture, checked, lastErrno } from './libc.ts';

const SYS_pwritev2 = byArchitecture({ x64: 328, arm64: 287 });
const pwritev2 = bind('long syscall(long number, long fd, void *parts, long count, long low, long high, long flags)');
const poll = bind('int poll(void *fds, unsigned long count, int timeout)');
const write = bind('long write(int fd, void *bytes, size_t length)');

const RWF_NOWAIT = 8;
const POLLOUT = 0x004;

/** Bytes that a writable descriptor accepts without blocking: PIPE_BUF for a pipe; a terminal reserves part of its buffer. */
const PIPE_CHUNK = 4096;
const TERMINAL_CHUNK = 256;

const part = Buffer.alloc(16); // struct iovec
const polled = Buffer.alloc(8); // struct pollfd

/**
 * Writes as many bytes as fit without waiting. It must not set O_NONBLOCK: programs that inherit the descriptor share the open file
 * description and do not expect the flag.
 * @returns the number of bytes written; 0 if the descriptor has no room until its reader reads
 * @throws {SystemError} EPIPE, ENOSPC, EIO
 */
export function writeAtOnce(fd: number, bytes: Buffer): number {
  const kind = fstatSync(fd);
  // A file never waits for a reader, and RWF_NOWAIT would refuse any write that needs a new block.
  if (kind.isFile()) return checked('write', write(fd, bytes, bytes.length));
  part.writeBigUInt64LE(koffi.address(bytes), 0);
  part.writeBigUInt64LE(BigInt(bytes.length), 8);
  const written = pwritev2(SYS_pwritev2, fd, part, 1, -1, -1, RWF_NOWAIT);
  if (written !== -1) return written;
  const errno = lastErrno();
  if (errno === constants.errno.EAGAIN) return 0;
  // Pipes support RWF_NOWAIT since 6.4; terminals and devices do not.
  const unknown: number[] = [constants.errno.EOPNOTSUPP, constants.errno.ENOSYS, constants.errno.EINVAL];
  if (!unknown.includes(errno)) throw new SystemError('pwritev2', errno);
  polled.writeInt32LE(fd, 0);
  polled.writeInt32LE(POLLOUT, 4);
  if (poll(polled, 1, 0) <= 0) return 0;
  const chunk = kind.isCharacterDevice() ? TERMINAL_CHUNK : PIPE_CHUNK;
  return checked('write', write(fd, bytes, Math.min(bytes.length, chunk)));
}
