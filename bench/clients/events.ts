import { WebSocket } from 'ws';

/**
 * Follows a client's events.
 * @param query of `/v1/events`
 * @param onFrame told of every frame, as JSON text, and when it came: CLOCK_MONOTONIC in nanoseconds
 * @returns when the daemon has said hello
 */
export async function followEvents(
  socket: string,
  query: string,
  onFrame: (frame: string, at: bigint) => void,
): Promise<WebSocket> {
  const webSocket = new WebSocket(`ws+unix:${socket}:/v1/events${query}`, ['waitd.v1'], { perMessageDeflate: false });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  webSocket.once('error', reject);
  webSocket.once('message', () => {
    resolve();
    webSocket.on('message', (data) => {
      const at = process.hrtime.bigint();
      onFrame(String(data), at);
    });
  });
  await promise;
  return webSocket;
}
