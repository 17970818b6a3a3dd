import { isIPv6 } from 'node:net';
import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const setsockopt = bind('int setsockopt(int fd, int level, int name, void *value, unsigned int length)');
const bindSocket = bind('int bind(int fd, void *address, unsigned int length)');

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;

/**
 * Creates a nonblocking TCP socket and binds it, with the options that Node.js sets (SO_REUSEADDR).
 * @param host an IPv4 or IPv6 address
 * @param port 0 makes the kernel choose one
 * @throws {SystemError} EADDRINUSE, EADDRNOTAVAIL, EACCES, EAFNOSUPPORT
 */
export function bindTcp(host: string, port: number): Descriptor {
  const family = isIPv6(host) ? AF_INET6 : AF_INET;
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const descriptor = new Descriptor(checked('socket', socket(family, type, 0)));
  try {
    const on = Buffer.alloc(4);
    on.writeInt32LE(1);
    checked('setsockopt', setsockopt(descriptor.fd, SOL_SOCKET, SO_REUSEADDR, on, on.length));
    // struct sockaddr_in: family, port, address, padding; sockaddr_in6: family, port, flow, address, scope.
    const address = Buffer.alloc(family === AF_INET ? 16 : 28);
    address.writeUInt16LE(family, 0);
    address.writeUInt16BE(port, 2);
    if (family === AF_INET) address.set(host.split('.').map(Number), 4);
    else address.set(bytesOf(host), 8);
    checked('bind', bindSocket(descriptor.fd, address, address.length));
    return descriptor;
  } catch (error) {
    descriptor.close();
    throw error;
  }
}

/** The URL parser writes an IPv6 address as groups of hexadecimal digits, with `::` for a run of zeros. */
function bytesOf(host: string): Uint8Array {
  const [front = '', back = ''] = new URL(`http://[${host}]`).hostname.slice(1, -1).split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const zeros = Array<string>(8 - groups(front).length - groups(back).length).fill('0');
  const bytes = Buffer.alloc(16);
  for (const [at, group] of [...groups(front), ...zeros, ...groups(back)].entries())
    bytes.writeUInt16BE(Number.parseInt(group, 16), at * 2);
  return bytes;
}
