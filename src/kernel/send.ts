import { bind } from './libc.ts';

const send = bind('long send(int fd, void *bytes, size_t length, int flags)');
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/**
 * Sends as many bytes as the socket accepts without waiting (send(2)).
 * @returns the number of bytes sent; 0 if the buffer is full or the call failed, in which case the next write fails too
 */
export function sendAtOnce(fd: number, bytes: Buffer): number {
  return Math.max(0, send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL));
}
