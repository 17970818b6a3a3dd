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
export const GOING_AWAY = 1001;
export const SERVICE_RESTART = 1012;
export const POLICY_VIOLATION = 1008;
const TRY_AGAIN_LATER = 1013;

/** How long a socket may take to take the close frame. */
const CLOSE_GRACE_MS = 1000;

/**
 * Frames to a WebSocket, each in one system call where nothing is before it: the way through the streams of Node and of ws costs several
 * times as much, and most on a machine that was idle, where somebody waits for the one frame.
 * @param carrier the connection under it
 */
export function webSocketSink(socket: WebSocket, carrier: Socket): Sink {
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

/** Closes with a code, and drops a socket that cannot even take that. */
export function closeSocket(socket: WebSocket, code: number, reason: string): void {
  socket.close(code, reason);
  const timer = setTimeout(() => socket.terminate(), CLOSE_GRACE_MS);
  socket.once('close', () => clearTimeout(timer));
}

/** Asks a socket again and again whether its other end is there, and drops one that has not answered by the next time. */
export function dropSilent(socket: WebSocket): void {
  let answered = true;
  socket.on('pong', () => {
    answered = true;
  });
  const timer = setInterval(() => {
    if (!answered) return socket.terminate();
    answered = false;
    socket.ping();
  }, PING_INTERVAL_MS);
  socket.once('close', () => clearInterval(timer));
}

/** Bytes of answers to pings that may wait for a reader that does not read. */
const PONGS_LIMIT = 64 * 2 ** 10;

/** Answers pings: each one, or where many wait for their reader, the latest (RFC 6455 5.5.3). */
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

/** Frames as server-sent events: unnamed, with the seq of an event as its id. */
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
    // The client resumes by the last id it got.
    cut: () => response.destroy(),
  };
}
