import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { WebSocket } from 'ws';
import type { Sink } from '../feed/sink.ts';
import { sendAtOnce } from '../kernel/send.ts';
import { descriptorOf } from './descriptor-of.ts';
import { PING_INTERVAL_MS } from './limits.ts';
import { textFrame } from './text-frame.ts';

/** WebSocket close codes (RFC 6455 7.4.1 and the registry it opened). */
export const NORMAL = 1000;
/** Never sent: the connection has closed without a close frame. */
export const ABNORMAL = 1006;
const GOING_AWAY = 1001;
const SERVICE_RESTART = 1012;
export const POLICY_VIOLATION = 1008;
export const INTERNAL_ERROR = 1011;
const TRY_AGAIN_LATER = 1013;

/** How a socket is closed when the daemon stops or is replaced. */
export const closings = {
  stopping: { code: GOING_AWAY, reason: 'shutting down' },
  restarting: { code: SERVICE_RESTART, reason: 'restarting, come back' },
};

/** The time that a client gets to answer a close frame. */
const CLOSE_GRACE_MS = 1000;

/** A sink that also sends bytes. */
export interface WebSocketSink extends Required<Sink> {
  /** Sends one binary frame. */
  sendBytes(bytes: Buffer): void;
}

/**
 * Makes a sink that sends frames to a WebSocket. If no data is queued, it sends a frame with one system call, which costs a fraction of the
 * streams of Node.js and ws.
 * @param carrier the connection under the WebSocket
 */
export function webSocketSink(socket: WebSocket, carrier: Socket): WebSocketSink {
  const isPlain = !(carrier instanceof TLSSocket);
  return {
    reading: (on) => {
      if (on === socket.isPaused) on ? socket.resume() : socket.pause();
    },
    send: (text) => {
      if (socket.readyState !== socket.OPEN || carrier.destroyed) return;
      const frame = textFrame(text);
      const sent = isPlain && carrier.writableLength === 0 ? sendAtOnce(descriptorOf(carrier), frame) : 0;
      if (sent < frame.length) carrier.write(frame.subarray(sent));
    },
    sendBytes: (bytes) => {
      if (socket.readyState === socket.OPEN) socket.send(bytes);
    },
    get buffered() {
      return socket.bufferedAmount;
    },
    flushed: (callback) => {
      if (carrier.writableLength === 0) setImmediate(callback);
      else if (!carrier.destroyed) carrier.write('', callback);
    },
    cut: (since) => closeSocket(socket, TRY_AGAIN_LATER, `resume since=${since}`),
  };
}

/** Closes a WebSocket with a code and a reason, and drops the connection if the client does not answer in time. */
export function closeSocket(socket: WebSocket, code: number, reason: string): void {
  socket.close(code, reason);
  const timer = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS);
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Calls a listener once, when a WebSocket has closed or both sides have sent a close frame. The server then closes the connection
 * (RFC 6455 7.1.1). A client that leaves its side open is disconnected after a short time.
 * @param carrier the connection under the WebSocket
 */
export function onceClosing(socket: WebSocket, carrier: Socket, listener: () => void): void {
  let isClosing = false;
  const closing = (): void => {
    if (!isClosing) listener();
    isClosing = true;
  };
  socket.once('close', closing);
  carrier.once('finish', () => {
    closing();
    const timer = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS);
    socket.once('close', () => clearTimeout(timer));
  });
}

/**
 * Pings a WebSocket at intervals, and drops the connection if nothing is heard from the client before the next ping. While the socket is
 * paused no answer would be read, so it gets pongs instead: they find out whether it is connected, and have no answer (RFC 6455 5.5.3).
 * @param carrier the connection under the WebSocket
 */
export function dropSilent(socket: WebSocket, carrier: Socket): void {
  const sent = (): number => carrier.bytesWritten - carrier.writableLength;
  let isAlive = true;
  let wasSent = Number.POSITIVE_INFINITY;
  const heard = (): void => {
    isAlive = true;
  };
  socket.on('pong', heard).on('message', heard);
  const timer = setInterval(() => {
    if (socket.isPaused) {
      isAlive = true;
      socket.pong();
      return;
    }
    if (!isAlive && sent() <= wasSent) return socket.terminate();
    isAlive = false;
    // If the kernel has no room, a slow client reads what is before the ping first. Then it counts that it reads.
    const isFull = carrier.writableLength > 0;
    socket.ping();
    wasSent = isFull ? sent() : Number.POSITIVE_INFINITY;
  }, PING_INTERVAL_MS);
  socket.once('close', () => clearInterval(timer));
}

/** The bytes of queued data up to which pongs are sent. */
const PONGS_LIMIT = 64 * 2 ** 10;

/** Answers each ping, or only the latest one while too much data is queued (RFC 6455 5.5.3). */
export function answerPings(socket: WebSocket): void {
  let latest: Buffer | null = null;
  const answer = (data: Buffer): void => {
    if (socket.bufferedAmount <= PONGS_LIMIT) socket.pong(data, false, answerLatest);
    else latest = data;
  };
  const answerLatest = (): void => {
    if (latest === null || socket.readyState !== socket.OPEN) return;
    const data = latest;
    latest = null;
    answer(data);
  };
  socket.on('ping', (data) => {
    if (socket.readyState === socket.OPEN) answer(data);
  });
}

/** Makes a sink that writes frames as server-sent events: unnamed, with the seq of an event as the id. */
export function eventStreamSink(response: ServerResponse): Sink {
  return {
    send: (frame, seq) => {
      response.write(seq === undefined ? `data: ${frame}\n\n` : `id: ${seq}\ndata: ${frame}\n\n`);
    },
    get buffered() {
      return response.writableLength;
    },
    flushed: (callback) => {
      if (response.writableLength === 0) setImmediate(callback);
      else response.write(': \n\n', () => callback());
    },
    // The client resumes from the last id that it received.
    cut: () => response.destroy(),
  };
}
