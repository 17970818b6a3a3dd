import { constants, fstatSync, openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const fcntl = bind('int fcntl(int fd, int command, long argument)');
const F_GETFL = 3;

/**
 * Reopens a pipe or a device in blocking mode, for a program that inherits it. O_NONBLOCK belongs to the open file description, so
 * the program would share it with others. A program that does not expect EAGAIN loses its output.
 * @param fd a descriptor of the daemon
 * @returns the new descriptor, or `null` if it cannot be reopened: a socket, a pipe of another user, or one without a reader. The
 *   function then clears O_NONBLOCK on the shared description instead.
 */
export function ownDescription(fd: number): Descriptor | null {
  const kind = fstatSync(fd);
  // O_NONBLOCK has no effect on a file, and programs that append to one must share its offset.
  if (kind.isFile() || kind.isDirectory()) return null;
  const own = kind.isFIFO() || kind.isCharacterDevice() ? reopen(fd) : null;
  (own ?? new Descriptor(fd)).nonblocking = false;
  return own;
}

function reopen(fd: number): Descriptor | null {
  const { O_ACCMODE, O_APPEND, O_NOCTTY, O_NONBLOCK } = { O_ACCMODE: 3, ...constants };
  const flags = checked('fcntl', fcntl(fd, F_GETFL, 0)) & (O_ACCMODE | O_APPEND);
  try {
    // Without O_NONBLOCK, opening a pipe that has no reader would block the daemon (fifo(7)).
    return new Descriptor(openSync(`/proc/self/fd/${fd}`, flags | O_NOCTTY | O_NONBLOCK));
  } catch {
    return null;
  }
}
