import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { LINGER_BYTES, LINGER_IDLE_MS, LINGER_MS } from './limits.ts';

/** The parser of a connection and the request that it reads, which Node.js has no public names for. */
interface Parsed {
  parser?: { incoming?: IncomingMessage | null } | null;
}

/**
 * Makes a connection close gracefully. Node.js closes it once the answer is written. If the client is still sending, the kernel then
 * resets the connection, and most clients lose an answer that they have not read.
 * @param socket a connection that was not given to the HTTP server yet
 */
export function closeGently(socket: Socket): void {
  const destroySoon = socket.destroySoon.bind(socket);
  socket.destroySoon = () => {
    const request = (socket as Parsed).parser?.incoming;
    if (request == null || request.complete || socket.readableEnded) destroySoon();
    else linger(socket);
  };
}

/**
 * Closes a connection in two steps (RFC 9112 9.6). First it sends the remaining data and a FIN. Then it discards further input, within
 * limits, until the client closes too. No further request is read.
 * @param last the data to send before the FIN
 */
export function linger(socket: Socket, last: string | Buffer = ''): void {
  let left = LINGER_BYTES;
  const parsers = socket.listeners('data') as (() => void)[];
  const ends = socket.listeners('end') as (() => void)[];
  // Node.js's parser reads the socket directly until the first `data` listener is added.
  socket.on('data', (data: Buffer) => {
    left -= data.length;
    idle.refresh();
    if (left < 0) socket.destroy();
  });
  for (const parse of parsers) socket.off('data', parse);
  for (const end of ends) socket.off('end', end);
  const whole = setTimeout(() => socket.destroy(), LINGER_MS);
  const idle = setTimeout(() => socket.destroy(), LINGER_IDLE_MS);
  socket.once('close', () => {
    clearTimeout(whole);
    clearTimeout(idle);
  });
  socket.end(last);
  socket.resume();
}
