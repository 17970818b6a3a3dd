import { WebSocket } from 'ws';

/**
 * Follows the events of a client.
 * @param query of `/v1/events`
 * @param onFrame receives each frame except bookmarks as JSON text, with its arrival time: CLOCK_MONOTONIC in nanoseconds
 * @returns after the daemon's hello frame
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
      const frame = String(data);
      if (!frame.startsWith('{"type":"bookmark"')) onFrame(frame, at);
    });
  });
  await promise;
  return webSocket;
}
