import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const bindSocket = bind('int bind(int fd, void *address, unsigned int length)');
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

/**
 * Creates a nonblocking Unix socket and binds it to a path. Node.js would remove the path when it stops listening, but a socket that the
 * next image of the daemon inherits must keep it.
 * @param path at most 107 bytes; the umask sets the mode of the socket file
 * @throws {SystemError} EADDRINUSE, EACCES, ENOENT, EROFS
 */
export function bindUnix(path: string): Descriptor {
  const descriptor = new Descriptor(checked('socket', socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  try {
    const name = Buffer.from(`${path}\0`);
    const address = Buffer.alloc(2 + name.length);
    address.writeUInt16LE(AF_UNIX, 0); // x64 and arm64 are little-endian
    name.copy(address, 2);
    checked('bind', bindSocket(descriptor.fd, address, address.length));
    return descriptor;
  } catch (error) {
    descriptor.close();
    throw error;
  }
}
