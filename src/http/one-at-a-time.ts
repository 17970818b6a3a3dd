import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { PIPELINE_LIMIT } from './limits.ts';

/**
 * Delays each pipelined request until all earlier ones on its connection have been answered. Node.js begins a request as soon as it is
 * parsed, even behind an answer that never ends. A waiting response gets no event when the client disconnects. So a waiting request
 * must not hold a descriptor, a part of a quota or a body. A connection with more than PIPELINE_LIMIT of them is closed.
 */
export function oneAtATime(server: Server): void {
  const begin = server.listeners('request') as ((request: IncomingMessage, response: ServerResponse) => void)[];
  const waiting = new WeakMap<Socket, number>();
  server.removeAllListeners('request');
  server.on('request', (request, response) => {
    const { socket } = request;
    // A response gets the socket when its turn has come.
    if (response.socket !== null) {
      for (const each of begin) each.call(server, request, response);
      return;
    }
    const count = (waiting.get(socket) ?? 0) + 1;
    if (count > PIPELINE_LIMIT) {
      socket.destroy();
      return;
    }
    waiting.set(socket, count);
    response.once('socket', () => {
      waiting.set(socket, waiting.get(socket)! - 1);
      // Node.js emits the event before it has finished assigning the socket.
      process.nextTick(() => {
        if (!response.destroyed) for (const each of begin) each.call(server, request, response);
      });
    });
  });
}
