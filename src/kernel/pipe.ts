import { fchmodSync, fchownSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, bindAside, checked } from './libc.ts';

const pipe2 = bind('int pipe2(void *fds, int flags)');
const poll = bind('int poll(void *fds, unsigned long count, int timeout)');
const splice = bindAside(
  'splice',
  'long splice(int from, void *fromOffset, int to, void *toOffset, size_t length, unsigned int flags)',
);
const O_CLOEXEC = 0o2000000;
const write = bind('long write(int fd, void *bytes, size_t length)');
const writeOnThread = bindAside('write', 'long write(int fd, void *bytes, size_t length)');
const POLLIN = 0x001;
const POLLOUT = 0x004;
const POLLERR = 0x008;
const POLLHUP = 0x010;
const SPLICE_F_NONBLOCK = 2;

/** A write of so many bytes to a pipe is atomic (pipe(7)). */
export const PIPE_BUF = 4096;

/** Creates a pipe with both ends blocking and close-on-exec (pipe(2)). @throws {SystemError} EMFILE, ENFILE */
export function makePipe(): { reader: Descriptor; writer: Descriptor } {
  const fds = Buffer.alloc(8);
  checked('pipe2', pipe2(fds, O_CLOEXEC));
  return { reader: new Descriptor(fds.readInt32LE(0)), writer: new Descriptor(fds.readInt32LE(4)) };
}

/** Gives a pipe to another user, so that a program of that user can open /dev/stdout. The group keeps its access. */
export function givePipe(end: Descriptor, uid: number): void {
  fchmodSync(end.fd, 0o660);
  fchownSync(end.fd, uid, -1);
}

/**
 * Polls the read end of a pipe without waiting (poll(2)). It takes no lock; every other call on a pipe blocks while a program writes
 * to it or {@link move} runs.
 * @returns `ready` if the pipe has bytes or has ended, `hungUp` if its last writer has closed it
 */
export function look(reader: Descriptor): { ready: boolean; hungUp: boolean } {
  const events = eventsOf(reader, POLLIN);
  return { ready: events !== 0, hungUp: (events & POLLHUP) !== 0 };
}

function eventsOf({ fd }: Descriptor, wanted: number): number {
  const request = Buffer.alloc(8); // struct pollfd: fd, events, revents
  request.writeInt32LE(fd, 0);
  request.writeInt16LE(wanted, 4);
  checked('poll', poll(request, 1, 0));
  return request.readInt16LE(6);
}

/** Returns whether the last reader of a pipe has closed it. */
export function isBroken(writer: Descriptor): boolean {
  return (eventsOf(writer, 0) & POLLERR) !== 0;
}

/** Returns whether a pipe takes {@link PIPE_BUF} bytes now. It takes no lock. */
export function hasRoom(writer: Descriptor): boolean {
  return (eventsOf(writer, POLLOUT) & POLLOUT) !== 0;
}

/**
 * Writes to a nonblocking descriptor as write(2) does: up to PIPE_BUF bytes at once or not at all, and of more as many as fit (pipe(7)).
 * @returns the number of bytes that were written; 0 if none fit
 * @throws {SystemError} EPIPE without a reader; EIO of a terminal that no process has open
 */
export function writeNow({ fd }: Descriptor, bytes: Buffer): number {
  try {
    return checked('write', write(fd, bytes, bytes.length));
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return 0;
    throw error;
  }
}

/**
 * Does {@link writeNow} on a thread of libuv's pool: the kernel locks a pipe while its reader copies, which that can make take long.
 * @param to may not be closed before this resolves
 */
export async function writeAside({ fd }: Descriptor, bytes: Buffer): Promise<number> {
  try {
    return await writeOnThread(fd, bytes, bytes.length);
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return 0;
    throw error;
  }
}

/**
 * Moves bytes from a pipe to a file on a thread of libuv's pool (splice(2)). Bytes that cannot be written stay in the pipe.
 * @param reader nonblocking; neither it nor the target may be closed before this resolves
 * @param to a descriptor of a file without O_APPEND, or of /dev/null
 * @param offset the file offset in bytes, which the kernel advances; `null` if the target has none. The caller must keep a reference
 *   until this resolves.
 * @param length the maximum number of bytes
 * @returns the number of bytes moved, 0 at the end of the pipe, or `null` if the pipe is empty but still has a writer
 * @throws {SystemError} ENOSPC, EDQUOT, EFBIG, EIO, EROFS
 */
export async function move(
  reader: Descriptor,
  to: Descriptor,
  offset: BigInt64Array | null,
  length: number,
): Promise<number | null> {
  try {
    return await splice(reader.fd, null, to.fd, offset, length, SPLICE_F_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return null;
    throw error;
  }
}
