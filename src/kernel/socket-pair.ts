import { constants } from 'node:os';
import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { isErrno, SystemError } from './errno.ts';
import { bind, checked, lastErrno } from './libc.ts';

const socketpair = bind('int socketpair(int domain, int type, int protocol, void *sockets)');
const sendmsg = bind('long sendmsg(int fd, void *message, int flags)');
const setsockopt = bind('int setsockopt(int fd, int level, int option, void *value, unsigned int length)');
const recv = bind('long recv(int fd, void *bytes, size_t length, int flags)');

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/**
 * Creates two connected sockets that preserve message boundaries (SOCK_SEQPACKET), close-on-exec. Both are blocking, for the child's
 * sake; {@link sendWith} and {@link receive} do not wait.
 * @throws {SystemError} EMFILE, ENFILE
 */
export function makeSocketPair(): { ours: Descriptor; theirs: Descriptor } {
  const sockets = Buffer.alloc(8);
  checked('socketpair', socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
  return { ours: new Descriptor(sockets.readInt32LE(0)), theirs: new Descriptor(sockets.readInt32LE(4)) };
}

/** Makes recv(2) on a socket fail with EAGAIN after `ms` milliseconds without a message (socket(7), SO_RCVTIMEO). */
export function limitReceive(socket: Descriptor, ms: number): void {
  const time = Buffer.alloc(16); // struct timeval
  time.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0);
  time.writeBigInt64LE(BigInt((ms % 1000) * 1000), 8);
  checked('setsockopt', setsockopt(socket.fd, SOL_SOCKET, SO_RCVTIMEO, time, time.length));
}

// Offsets of what sendmsg(2) reads. One buffer holds all of it, because V8 does not know that an address refers to a buffer.
const HEADER = 0; // struct msghdr
const PART = 56; // struct iovec
const CONTROL = 72; // struct cmsghdr, then the descriptors
const MOST_DESCRIPTORS = 8;
const BODY = CONTROL + 16 + 4 * MOST_DESCRIPTORS;
const MOST_BYTES = 1024;
const message = Buffer.alloc(BODY + MOST_BYTES);
const base = koffi.address(message);
message.writeBigUInt64LE(base + BigInt(PART), HEADER + 16);
message.writeBigUInt64LE(1n, HEADER + 24);
message.writeBigUInt64LE(base + BigInt(CONTROL), HEADER + 32);
message.writeBigUInt64LE(base + BigInt(BODY), PART);
message.writeInt32LE(SOL_SOCKET, CONTROL + 8);
message.writeInt32LE(SCM_RIGHTS, CONTROL + 12);

/**
 * Sends a message with descriptors, without waiting (unix(7), SCM_RIGHTS).
 * @param body 1 to 1024 bytes
 * @param descriptors up to 8
 * @returns false if the queue is full and the caller should retry
 * @throws {SystemError} EPIPE, ECONNRESET if the other end is closed
 */
export function sendWith(socket: Descriptor, body: Buffer, descriptors: readonly number[]): boolean {
  body.copy(message, BODY);
  message.writeBigUInt64LE(BigInt(body.length), PART + 8);
  const length = 16 + 4 * descriptors.length;
  message.writeBigUInt64LE(BigInt(descriptors.length === 0 ? 0 : Math.ceil(length / 8) * 8), HEADER + 40);
  message.writeBigUInt64LE(BigInt(length), CONTROL);
  for (const [index, fd] of descriptors.entries()) message.writeInt32LE(fd, CONTROL + 16 + 4 * index);
  try {
    checked('sendmsg', sendmsg(socket.fd, message, MSG_DONTWAIT | MSG_NOSIGNAL));
    return true;
  } catch (error) {
    // ETOOMANYREFS: too many descriptors are in flight (unix(7)).
    if (isErrno(error, 'EAGAIN', 'ENOBUFS', 'ETOOMANYREFS')) return false;
    throw error;
  }
}

/**
 * Receives one message without waiting.
 * @param most the maximum length in bytes
 * @returns the message, an empty one if the other end is closed, or `null` if no message is queued
 * @throws {SystemError} if recv fails otherwise
 */
export function receive(socket: Descriptor, most: number): Buffer | null {
  const bytes = Buffer.alloc(most);
  for (;;) {
    const length = recv(socket.fd, bytes, most, MSG_DONTWAIT);
    if (length !== -1) return bytes.subarray(0, length);
    const errno = lastErrno();
    // The usual result after each message, for which an error object would cost more than the message.
    if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return null;
    // Reported once, before the queued messages, if the other end was closed with an unread message.
    if (errno !== constants.errno.ECONNRESET) throw new SystemError('recv', errno);
  }
}
