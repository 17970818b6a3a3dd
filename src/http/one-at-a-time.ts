import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { PIPELINE_LIMIT } from './limits.ts';

/**
 * Begins a request only once every earlier one on its connection has been answered. Node.js begins each as soon as it is parsed, even
 * behind an answer that never ends, and does not tell a response that waits for its turn that the client has left. So a request
 * that waits must not hold anything yet: no descriptor, no place of a quota, no body. A connection with more than PIPELINE_LIMIT of
 * them is closed.
 */
export function oneAtATime(server: Server): void {
  const begin = server.listeners('request') as ((request: IncomingMessage, response: ServerResponse) => void)[];
  const waiting = new WeakMap<Socket, number>();
  server.removeAllListeners('request');
  server.on('request', (request, response) => {
    const { socket } = request;
    // It is the response's as soon as its turn has come.
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
      // After Node.js is done with giving it the socket.
      process.nextTick(() => {
        if (!response.destroyed) for (const each of begin) each.call(server, request, response);
      });
    });
  });
}
