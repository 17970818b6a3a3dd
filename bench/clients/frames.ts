import { connect } from 'node:net';

const TEXT = 0x81;
const UPGRADE = [
  'GET /v1/events?type=exited HTTP/1.1',
  'host: localhost',
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: d2FpdGQgc3Vic2NyaWJlcg==',
];

/**
 * Counts the events in a byte stream of WebSocket frames, which may be split anywhere. Events are longer than 125 bytes, and all
 * other frames are shorter.
 */
class EventCounter {
  #header: number[] = [];
  #missing = 0;
  #isEvent = false;
  /** Whether a first frame is complete. */
  isGreeted = false;

  take(read: Buffer): number {
    let events = 0;
    for (let at = 0; at < read.length; ) {
      if (this.#missing === 0) {
        this.#header.push(read[at]!);
        at += 1;
        const length = lengthIn(this.#header);
        if (length === null) continue;
        this.#isEvent = length > 125;
        this.#header = [];
        this.#missing = length;
      }
      const step = Math.min(this.#missing, read.length - at);
      this.#missing -= step;
      at += step;
      if (this.#missing > 0) continue;
      this.isGreeted = true;
      if (this.#isEvent) events += 1;
    }
    return events;
  }
}

/** Returns the size of an unmasked text frame of 1 byte to 64 KiB; `null` if the header is incomplete. */
function lengthIn([kind, length, high, low]: number[]): number | null {
  if (kind !== TEXT) throw new Error(`not a text frame, it begins with ${kind}`);
  if (length !== 126) return length ?? null;
  return low === undefined ? null : high! * 256 + low;
}

/**
 * Follows the exits by WebSocket and only counts them, without Node.js streams and decoding: reading hundreds of
 * sockets in one process must cost less than writing to them.
 * @param onFrames receives the number of newly completed events
 * @returns after the server's hello frame
 */
export function countFrames(path: string, onFrames: (count: number) => void): Promise<void> {
  const counter = new EventCounter();
  let head = '';
  return new Promise((resolve, reject) => {
    const take = (read: Buffer): void => {
      const count = counter.take(read);
      if (counter.isGreeted) resolve();
      if (count > 0) onFrames(count);
    };
    const socket = connect({
      path,
      onread: {
        buffer: Buffer.alloc(65536),
        callback: (length, buffer) => {
          const read = (buffer as Buffer).subarray(0, length);
          if (head.includes('\r\n\r\n')) {
            take(read);
            return true;
          }
          head += read.toString('latin1');
          const end = head.indexOf('\r\n\r\n');
          if (end !== -1 && !head.startsWith('HTTP/1.1 101')) reject(new Error(head));
          else if (end !== -1) take(Buffer.from(head.slice(end + 4), 'latin1'));
          return true;
        },
      },
    });
    socket.once('error', reject);
    socket.write(`${UPGRADE.join('\r\n')}\r\n\r\n`);
  });
}
