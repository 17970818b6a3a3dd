import { bind } from './libc.ts';

const send = bind('long send(int fd, void *bytes, size_t length, int flags)');
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/**
 * send(2), as much as the socket takes at once.
 * @returns how many bytes it took; 0 where it takes none now, or never will: whoever writes to it next is told which
 */
export function sendAtOnce(fd: number, bytes: Buffer): number {
  return Math.max(0, send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL));
}
