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
const POLLIN = 0x001;
const POLLHUP = 0x010;
const SPLICE_F_NONBLOCK = 2;

/** A pipe, both ends blocking and close-on-exec. */
export function makePipe(): { reader: Descriptor; writer: Descriptor } {
  const fds = Buffer.alloc(8);
  checked('pipe2', pipe2(fds, O_CLOEXEC));
  return { reader: new Descriptor(fds.readInt32LE(0)), writer: new Descriptor(fds.readInt32LE(4)) };
}

/** Lets another user open a pipe by its name in /proc, as programs do with /dev/stdout, and this process's group as before. */
export function givePipe(end: Descriptor, uid: number): void {
  fchmodSync(end.fd, 0o660);
  fchownSync(end.fd, uid, -1);
}

/**
 * What a pipe has for its reader: bytes or its end (`ready`), and whether its last writer is gone (poll(2)). It takes no lock, while
 * every other call on a pipe waits for a program that is just writing to it and for a {@link move}.
 */
export function look(reader: Descriptor): { ready: boolean; hungUp: boolean } {
  const request = Buffer.alloc(8); // struct pollfd: fd, events, revents
  request.writeInt32LE(reader.fd, 0);
  request.writeInt16LE(POLLIN, 4);
  checked('poll', poll(request, 1, 0));
  const events = request.readInt16LE(6);
  return { ready: events !== 0, hungUp: (events & POLLHUP) !== 0 };
}

/**
 * Moves bytes from a pipe on a thread of libuv's pool (splice(2)). What cannot be written stays in the pipe.
 * @param reader nonblocking; neither it nor the target may be closed before this resolves
 * @param to a descriptor of a file without O_APPEND, or of /dev/null
 * @param offset where in the file, 64 bits, which the kernel counts up; `null` where the target has no offset. The caller keeps it
 *   referenced until this resolves.
 * @param length bytes, at most
 * @returns how many bytes; 0 once nobody can write to the pipe any more; `null` where it is empty for now
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
