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

/** Where the service manager's descriptors begin (sd_listen_fds(3)). */
const FIRST_PASSED = 3;

/** What a service manager wants to be told, sd_notify(3): datagrams to the socket that it names in NOTIFY_SOCKET. */
export class Notifier {
  readonly #socket: Descriptor;
  readonly #address: Buffer;

  /** @returns `null` where nobody wants to know */
  static fromEnvironment(): Notifier | null {
    const path = process.env.NOTIFY_SOCKET;
    return path === undefined || !/^[/@]./.test(path) ? null : new Notifier(path);
  }

  private constructor(path: string) {
    // An abstract name begins with a NUL, which travels as @ (unix(7)).
    const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : `${path}\0`);
    this.#address = Buffer.alloc(2 + name.length);
    this.#address.writeUInt16LE(AF_UNIX, 0);
    name.copy(this.#address, 2);
    this.#socket = new Descriptor(checked('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  }

  /**
   * Never waits.
   * @param state lines of `NAME=value`
   * @param passed a descriptor that the manager gets a copy of
   * @returns false where its queue is full for now; true where it was sent, or where there is nobody to send it to
   */
  send(state: string, passed?: Descriptor): boolean {
    const text = Buffer.from(state);
    const part = Buffer.alloc(16); // struct iovec
    part.writeBigUInt64LE(koffi.address(text), 0);
    part.writeBigUInt64LE(BigInt(text.length), 8);
    const message = Buffer.alloc(56); // struct msghdr
    message.writeBigUInt64LE(koffi.address(this.#address), 0);
    message.writeUInt32LE(this.#address.length, 8);
    message.writeBigUInt64LE(koffi.address(part), 16);
    message.writeBigUInt64LE(1n, 24);
    const control = Buffer.alloc(24); // struct cmsghdr with one descriptor, and its padding
    if (passed !== undefined) {
      control.writeBigUInt64LE(20n, 0);
      control.writeInt32LE(SOL_SOCKET, 8);
      control.writeInt32LE(SCM_RIGHTS, 12);
      control.writeInt32LE(passed.fd, 16);
      message.writeBigUInt64LE(koffi.address(control), 32);
      message.writeBigUInt64LE(BigInt(control.length), 40);
    }
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
 */
export function takePassed(): Passed[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = '' } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(pid) !== process.pid || !/^\d{1,6}$/.test(count ?? '')) return [];
  const named = names.split(':');
  return Array.from({ length: Number(count) }, (_, at) => {
    const fd = FIRST_PASSED + at;
    return { fd, name: named[at] ?? '', isPidfd: statfsSync(`/proc/self/fd/${fd}`).type === PIDFS_MAGIC };
  });
}
