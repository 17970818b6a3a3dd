import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { LINGER_BYTES, LINGER_IDLE_MS, LINGER_MS } from './limits.ts';

/** What Node has no public name for: the parser of a connection, and the request that it is reading. */
interface Parsed {
  parser?: { incoming?: IncomingMessage | null } | null;
}

/**
 * Has a connection closed so that its last answer arrives. Node closes it once the answer is written, and the kernel then resets a
 * connection on which a client is still sending: most clients lose an answer that they have not read by then.
 * @param socket of a connection that has not been given to the HTTP server yet
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
 * Ends a connection for its client (RFC 9112 9.6): sends what is left and a FIN, then discards what the client still sends, within
 * bounds, until the client closes too. No request is read from it any more.
 * @param last bytes to send before the end
 */
export function linger(socket: Socket, last: string | Buffer = ''): void {
  let left = LINGER_BYTES;
  const parsers = socket.listeners('data') as (() => void)[];
  const ends = socket.listeners('end') as (() => void)[];
  // The first listener for data is what takes the socket away from Node's parser, which reads it without one.
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
