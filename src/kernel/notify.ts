import { fstatSync, statfsSync } from 'node:fs';
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

// Offsets of what sendmsg(2) reads. One buffer holds all of it and lives as long as its notifier: V8 does not know that an address
// refers to a buffer, and may free the buffer even inside the function that took its address.
const HEADER = 0; // struct msghdr
const PART = 56; // struct iovec
const CONTROL = 72; // struct cmsghdr with one descriptor
const CONTROL_LENGTH = 24; // with its padding
const ADDRESS = 96; // struct sockaddr_un
const TEXT = 208;
const SIZE = 1024;

/** sun_path is 108 bytes with its NUL (unix(7)). */
const LONGEST_PATH = 107;

/** The number of the first passed descriptor (SD_LISTEN_FDS_START in sd_listen_fds(3)). */
const FIRST_PASSED = 3;

/** Sends state changes to the service manager: datagrams to the socket in NOTIFY_SOCKET (sd_notify(3)). */
export class Notifier {
  readonly #socket: Descriptor;
  readonly #message = Buffer.alloc(SIZE);

  /** @returns `null` if NOTIFY_SOCKET is not set or not valid */
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
    // NOTIFY_SOCKET shows the NUL that begins an abstract name as @. Such a name has no NUL at its end (unix(7)).
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
   * Sends a notification without waiting.
   * @param state lines of `NAME=value`, at most 816 bytes
   * @param passed a descriptor to send with it (SCM_RIGHTS)
   * @returns false if the manager's queue is full and the caller should retry; true if it was sent or can never be sent
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
      // ETOOMANYREFS: too many descriptors are in flight (unix(7)).
      return !isErrno(error, 'EAGAIN', 'ENOBUFS', 'ETOOMANYREFS');
    }
  }
}

/** A descriptor that the service manager passed at startup, with its name from LISTEN_FDNAMES. */
export interface Passed {
  name: string;
  fd: number;
  /** `other` is a socket, if it is anything that the daemon can use. */
  kind: 'pidfd' | 'pipe' | 'terminal' | 'other';
}

/**
 * Takes the descriptors from the service manager (sd_listen_fds(3)): sockets, and those it stored for an earlier daemon.
 * Removes the variables, so that neither a child nor the next image of the daemon claims the same descriptors.
 * @throws {Error} if LISTEN_FDS is not a number, or is larger than the number of open descriptors
 */
export function takePassed(): Passed[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(pid) !== process.pid || count === undefined) return [];
  // A count of seven digits exceeds the descriptors that any process can have.
  if (!/^\d{1,6}$/.test(count))
    throw new Error(`LISTEN_FDS is ${JSON.stringify(count)}, which is not a valid number of descriptors`);
  const named = names.split(':');
  return Array.from({ length: Number(count) }, (_, at) => {
    const fd = FIRST_PASSED + at;
    return { fd, name: named[at] || 'unknown', kind: kindOf(fd, count) };
  });
}

function kindOf(fd: number, count: string): Passed['kind'] {
  try {
    if (statfsSync(`/proc/self/fd/${fd}`).type === PIDFS_MAGIC) return 'pidfd';
    const kind = fstatSync(fd);
    if (kind.isFIFO()) return 'pipe';
    return kind.isCharacterDevice() ? 'terminal' : 'other';
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw new Error(`LISTEN_FDS is ${count}, but descriptor ${fd} is not open`);
    throw error;
  }
}
