import type { Server, Socket } from 'node:net';

/**
 * Returns the descriptor of a socket, which Node.js has no public name for.
 * @throws {Error} if the socket is closed
 */
export function descriptorOf(socket: Socket | Server): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle === null) throw new Error('socket is closed');
  return handle.fd;
}
