import { bind, checked } from './libc.ts';

const getsockopt = bind('int getsockopt(int fd, int level, int name, void *value, void *length)');
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/**
 * Returns the credentials of a Unix socket's peer, as the kernel recorded them at connect(2) (unix(7), SO_PEERCRED).
 * @param fd the accepted socket
 * @throws {SystemError} if getsockopt fails
 */
export function peerOf(fd: number): { pid: number; uid: number; gid: number } {
  const credentials = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(credentials.length);
  checked('getsockopt', getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length));
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4), gid: credentials.readUInt32LE(8) };
}
