import { isIPv4, isIPv6 } from 'node:net';
import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { bind } from './libc.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const send = bind('long send(int fd, void *message, size_t length, int flags)');
const receive = bind('long recv(int fd, void *message, size_t length, int flags)');
const pollNow = bind('int poll(void *fds, unsigned long count, int timeout)');

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const IPPROTO_TCP = 6;
const POLLERR = 8;
const POLLHUP = 16;

// include/uapi/linux/sock_diag.h, inet_diag.h
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLMSG_ERROR = 2;
const NLM_F_REQUEST = 1;
const NO_COOKIE = 0xffff_ffff;
const HEADER = 16; // struct nlmsghdr
const REQUEST = HEADER + 56; // struct inet_diag_req_v2
const ID_IN_REQUEST = HEADER + 8;
const ID_IN_ANSWER = HEADER + 4;
const INODE_IN_ANSWER = HEADER + 68;

/**
 * Reports whether both directions of a connection are closed: the peer closed its Unix socket, or TCP was reset (POLLHUP or POLLERR in
 * poll(2)). A peer that only shut down its sending side is still connected.
 */
export function isHungUp(fd: number): boolean {
  const entry = Buffer.alloc(8); // struct pollfd; POLLERR and POLLHUP need no request
  entry.writeInt32LE(fd, 0);
  return pollNow(entry, 1, 0) === 1 && (entry.readInt16LE(6) & (POLLERR | POLLHUP)) !== 0;
}

/** One end of a TCP connection. */
export interface End {
  address: string;
  port: number;
}

/**
 * Reports whether a program still holds the peer's socket of a TCP connection. A FIN does not tell, because shutdown(2) and close(2)
 * send the same one. The kernel knows if both ends are in this network namespace (sock_diag(7)).
 * @param ours the address of this process's end
 * @param theirs the address of the peer's end
 * @returns `elsewhere` if the peer's socket is not in this network namespace, or is unknown
 */
export function holderOf(ours: End, theirs: End): 'held' | 'closed' | 'elsewhere' {
  const [near, far] = [bytesOf(ours.address), bytesOf(theirs.address)];
  if (near === null || far === null || near.length !== far.length) return 'elsewhere';
  const answer = ask(far, theirs.port, near, ours.port);
  if (answer === null || answer.length < HEADER + 4) return 'elsewhere';
  if (answer.readUInt16LE(4) === NLMSG_ERROR) {
    // This kernel had both ends of a loopback connection, so a missing socket was closed.
    const isHere = far.length === 4 ? far[0] === 127 : isIPv6Loopback(far);
    return isHere && -answer.readInt32LE(HEADER) === koffi.os.errno.ENOENT ? 'closed' : 'elsewhere';
  }
  if (answer.length < INODE_IN_ANSWER + 4) return 'elsewhere';
  // If no such connection exists, the kernel returns a socket that listens on the address.
  if (answer.readUInt16BE(ID_IN_ANSWER + 2) !== ours.port) return 'elsewhere';
  return answer.readUInt32LE(INODE_IN_ANSWER) === 0 ? 'closed' : 'held';
}

function ask(source: Buffer, sourcePort: number, target: Buffer, targetPort: number): Buffer | null {
  const fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd === -1) return null; // out of descriptors, or not permitted
  using _closed = new Descriptor(fd);
  const message = Buffer.alloc(REQUEST);
  message.writeUInt32LE(REQUEST, 0);
  message.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  message.writeUInt16LE(NLM_F_REQUEST, 6);
  message[HEADER] = source.length === 4 ? AF_INET : AF_INET6;
  message[HEADER + 1] = IPPROTO_TCP;
  message.writeUInt32LE(0xffff_ffff, HEADER + 4); // every state
  message.writeUInt16BE(sourcePort, ID_IN_REQUEST);
  message.writeUInt16BE(targetPort, ID_IN_REQUEST + 2);
  source.copy(message, ID_IN_REQUEST + 4);
  target.copy(message, ID_IN_REQUEST + 20);
  message.writeUInt32LE(NO_COOKIE, ID_IN_REQUEST + 40);
  message.writeUInt32LE(NO_COOKIE, ID_IN_REQUEST + 44);
  if (send(fd, message, message.length, 0) === -1) return null;
  // The kernel queues the answer before send(2) returns.
  const answer = Buffer.alloc(1024);
  const length = receive(fd, answer, answer.length, MSG_DONTWAIT);
  return length === -1 ? null : answer.subarray(0, length);
}

/** Converts an IP address to its bytes. @returns `null` for an address with a zone and for an invalid one */
function bytesOf(address: string): Buffer | null {
  const plain = address.startsWith('::ffff:') && isIPv4(address.slice(7)) ? address.slice(7) : address;
  if (isIPv4(plain)) return Buffer.from(plain.split('.').map(Number));
  if (!isIPv6(plain) || plain.includes('%') || plain.includes('.')) return null;
  const [head = '', tail] = plain.split('::');
  const groups = (text: string): number[] =>
    text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
  const first = groups(head);
  const last = tail === undefined ? [] : groups(tail);
  const all = [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last];
  const bytes = Buffer.alloc(16);
  all.forEach((group, at) => void bytes.writeUInt16BE(group, at * 2));
  return bytes;
}

function isIPv6Loopback(bytes: Buffer): boolean {
  return bytes.every((byte, at) => byte === (at === 15 ? 1 : 0));
}
