import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const bindSocket = bind('int bind(int fd, void *address, unsigned int length)');
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

/**
 * A Unix socket bound to a path, ready to listen. Made here and not by Node, which removes the path when it stops
 * listening: a socket that is handed on to the next image of the daemon must keep its name.
 * @param path at most 107 bytes; its file gets the mode that the umask leaves
 * @throws {SystemError} EADDRINUSE, EACCES, ENOENT, EROFS
 */
export function bindUnix(path: string): Descriptor {
  const descriptor = new Descriptor(checked('socket', socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  try {
    const name = Buffer.from(`${path}\0`);
    const address = Buffer.alloc(2 + name.length);
    address.writeUInt16LE(AF_UNIX, 0); // both architectures that we run on are little-endian
    name.copy(address, 2);
    checked('bind', bindSocket(descriptor.fd, address, address.length));
    return descriptor;
  } catch (error) {
    descriptor.close();
    throw error;
  }
}
