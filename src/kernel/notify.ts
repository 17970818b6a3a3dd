import { statfsSync } from 'node:fs';
import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';
import { PIDFS_MAGIC } from './pidfd.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const sendmsg = bind('long sendmsg(int fd, void *message, int flags)');

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

// What sendmsg(2) reads, in one buffer that lives as long as its notifier: V8 frees what nothing but an address refers to,
// also in the middle of the function that took the address.
const HEADER = 0; // struct msghdr
const PART = 56; // struct iovec
const CONTROL = 72; // struct cmsghdr with one descriptor
const CONTROL_LENGTH = 24; // with its padding
const ADDRESS = 96; // struct sockaddr_un
const TEXT = 208;
const SIZE = 1024;

/** sun_path is 108 bytes with its NUL (unix(7)). */
const LONGEST_PATH = 107;

/** Where the service manager's descriptors begin (sd_listen_fds(3)). */
const FIRST_PASSED = 3;

/** What a service manager wants to be told, sd_notify(3): datagrams to the socket that it names in NOTIFY_SOCKET. */
export class Notifier {
  readonly #socket: Descriptor;
  readonly #message = Buffer.alloc(SIZE);

  /** @returns `null` where nobody wants to know */
  static fromEnvironment(): Notifier | null {
    const path = process.env.NOTIFY_SOCKET;
    if (path === undefined || !/^[/@]./.test(path) || Buffer.byteLength(path) > LONGEST_PATH) return null;
    return new Notifier(path);
  }

  private constructor(path: string) {
    this.#socket = new Descriptor(checked('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
    const message = this.#message;
    const base = koffi.address(message);
    message.writeUInt16LE(AF_UNIX, ADDRESS);
    // An abstract name begins with a NUL, which travels as @, and ends with its length (unix(7)).
    const abstract = path.startsWith('@');
    const length = message.write(abstract ? `\0${path.slice(1)}` : path, ADDRESS + 2);
    message.writeBigUInt64LE(base + BigInt(ADDRESS), HEADER);
    message.writeUInt32LE(2 + length + (abstract ? 0 : 1), HEADER + 8);
    message.writeBigUInt64LE(base + BigInt(PART), HEADER + 16);
    message.writeBigUInt64LE(1n, HEADER + 24);
    message.writeBigUInt64LE(base + BigInt(CONTROL), HEADER + 32);
    message.writeBigUInt64LE(base + BigInt(TEXT), PART);
    message.writeBigUInt64LE(20n, CONTROL);
    message.writeInt32LE(SOL_SOCKET, CONTROL + 8);
    message.writeInt32LE(SCM_RIGHTS, CONTROL + 12);
  }

  /**
   * Never waits.
   * @param state lines of `NAME=value`, 816 bytes at most
   * @param passed a descriptor that the manager gets a copy of
   * @returns false where its queue is full for now; true where it was sent, or where there is nobody to send it to
   */
  send(state: string, passed?: Descriptor): boolean {
    const message = this.#message;
    message.writeBigUInt64LE(BigInt(message.write(state, TEXT)), PART + 8);
    message.writeBigUInt64LE(BigInt(passed === undefined ? 0 : CONTROL_LENGTH), HEADER + 40);
    if (passed !== undefined) message.writeInt32LE(passed.fd, CONTROL + 16);
    try {
      checked('sendmsg', sendmsg(this.#socket.fd, message, MSG_DONTWAIT | MSG_NOSIGNAL));
      return true;
    } catch (error) {
      // ETOOMANYREFS: too many descriptors are on their way already.
      return !isErrno(error, 'EAGAIN', 'ENOBUFS', 'ETOOMANYREFS');
    }
  }
}

/** A descriptor that the service manager passed at the start, with the name that it has there. */
export interface Passed {
  name: string;
  fd: number;
  isPidfd: boolean;
}

/**
 * Takes what the service manager passed (sd_listen_fds(3)): sockets, and what it stored for an earlier daemon. The variables
 * go, so that neither a child nor the next image takes these descriptors for its own.
 * @throws {Error} for a count that is none, or of more than there are
 */
export function takePassed(): Passed[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(pid) !== process.pid || count === undefined) return [];
  // No process has as many as seven digits tell.
  if (!/^\d{1,6}$/.test(count))
    throw new Error(`LISTEN_FDS is ${JSON.stringify(count)}, which is no number of sockets that can have been passed`);
  const named = names.split(':');
  return Array.from({ length: Number(count) }, (_, at) => {
    const fd = FIRST_PASSED + at;
    return { fd, name: named[at] || 'unknown', isPidfd: isPidfd(fd, count) };
  });
}

function isPidfd(fd: number, count: string): boolean {
  try {
    return statfsSync(`/proc/self/fd/${fd}`).type === PIDFS_MAGIC;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw new Error(`LISTEN_FDS is ${count}, but there is no descriptor ${fd}`);
    throw error;
  }
}
