import { bind, checked } from './libc.ts';

const getsockname = bind('int getsockname(int fd, void *address, void *length)');
const getsockopt = bind('int getsockopt(int fd, int level, int name, void *value, void *length)');

const listen = bind('int listen(int fd, int backlog)');

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SOCK_STREAM = 1;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;

/** The address of a bound socket. An abstract name begins with `@`, as in systemd.socket(5). */
export type Bound = { unix: string } | { host: string; port: number };

/**
 * Starts listening on a bound socket (listen(2)).
 * @param backlog the number of connections that may wait to be accepted
 * @throws {SystemError} EADDRINUSE if another socket listens on the same address
 */
export function startListening(fd: number, backlog: number): void {
  checked('listen', listen(fd, backlog));
}

/**
 * Returns the address on which a descriptor listens for connections.
 * @returns `null` if the descriptor is not a listening stream socket
 */
export function listensAt(fd: number): Bound | null {
  try {
    if (option(fd, SO_TYPE) !== SOCK_STREAM || option(fd, SO_ACCEPTCONN) === 0) return null;
  } catch {
    return null; // ENOTSOCK
  }
  const address = Buffer.alloc(128); // struct sockaddr_storage
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  checked('getsockname', getsockname(fd, address, length));
  const size = length.readUInt32LE();
  switch (address.readUInt16LE()) {
    case AF_UNIX:
      return { unix: unixName(address.subarray(2, size)) };
    case AF_INET:
      return { host: address.subarray(4, 8).join('.'), port: address.readUInt16BE(2) };
    case AF_INET6:
      return { host: ipv6Name(address.subarray(8, 24)), port: address.readUInt16BE(2) };
    default:
      return null;
  }
}

function option(fd: number, name: number): number {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  checked('getsockopt', getsockopt(fd, SOL_SOCKET, name, value, length));
  return value.readInt32LE();
}

function unixName(path: Buffer): string {
  if (path[0] === 0 && path.length > 1) return `@${path.subarray(1)}`;
  const end = path.indexOf(0);
  return path.toString('utf8', 0, end === -1 ? path.length : end);
}

/** The URL parser writes IPv6 addresses in the canonical form of RFC 5952. */
function ipv6Name(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(at * 2).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
