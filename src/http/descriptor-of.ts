import type { Server, Socket } from 'node:net';

/**
 * The descriptor of a socket, for which Node has no public name.
 * @throws {Error} where it is closed
 */
export function descriptorOf(socket: Socket | Server): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle === null) throw new Error('socket is closed');
  return handle.fd;
}
