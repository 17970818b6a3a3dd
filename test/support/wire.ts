import { connect, type Socket } from 'node:net';
import { checkFrame, type Daemon, eventually } from './harness.ts';

/** One connection and everything that it receives. */
export class Wire {
  readonly socket: Socket;
  text = '';
  readonly closed: Promise<string>;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('latin1').on('data', (data: string) => {
      this.text += data;
    });
    socket.on('error', () => {}); // `close` follows every error
    socket.once('close', () => checkStream(this.text));
    this.closed = new Promise((resolve) => socket.once('close', () => resolve(this.text)));
  }

  async until(pattern: RegExp): Promise<void> {
    await eventually(() => pattern.test(this.text) || this.socket.destroyed);
    if (!pattern.test(this.text)) throw new Error(`closed after: ${this.text}`);
  }

  /** Sends a text and shuts down the sending side (shutdown(2)). The receiving side stays open. */
  finish(text: string): this {
    this.socket.end(text);
    return this;
  }

  /** Sends a text, and then single bytes at intervals until the connection closes. */
  drip(text: string): this {
    this.socket.write(text);
    const timer = setInterval(() => this.socket.write('x'), 20);
    this.socket.once('close', () => clearInterval(timer));
    return this;
  }
}

/** Checks every complete frame of an event stream. */
function checkStream(text: string): void {
  if (!/^content-type: text\/event-stream/im.test(text)) return;
  for (const [, frame] of text.matchAll(/^data: (.*)\n/gm)) checkFrame(JSON.parse(frame!));
}

export const tcp = (daemon: Daemon): Wire => new Wire(connect(daemon.port, '127.0.0.1'));
export const unix = (daemon: Daemon): Wire => new Wire(connect(daemon.socket));

/** Returns the head of a request by the client of the first token. */
export const head = (daemon: Daemon, request: string, ...headers: string[]): string =>
  [`${request} HTTP/1.1`, 'host: localhost', `authorization: Bearer ${daemon.token}`, ...headers, '', ''].join('\r\n');
export const UPGRADE = [
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==',
];
