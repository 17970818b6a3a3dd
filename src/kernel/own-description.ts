import { constants, fstatSync, openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const fcntl = bind('int fcntl(int fd, int command, long argument)');
const F_GETFL = 3;

/**
 * Opens what a descriptor leads to once more, blocking, so that a program which gets it shares no O_NONBLOCK with others: that flag is
 * of the open file description, and a program that does not expect it loses what it writes with EAGAIN.
 * @param fd of the daemon itself
 * @returns `null` where there is none to be had: a socket, a pipe of another user, no reader. The flag is cleared on the shared one then.
 */
export function ownDescription(fd: number): Descriptor | null {
  const kind = fstatSync(fd);
  // A file has no such flag, and its offset is to be shared.
  if (kind.isFile() || kind.isDirectory()) return null;
  const own = kind.isFIFO() || kind.isCharacterDevice() ? reopen(fd) : null;
  (own ?? new Descriptor(fd)).nonblocking = false;
  return own;
}

function reopen(fd: number): Descriptor | null {
  const { O_ACCMODE, O_APPEND, O_NOCTTY, O_NONBLOCK } = { O_ACCMODE: 3, ...constants };
  const flags = checked('fcntl', fcntl(fd, F_GETFL, 0)) & (O_ACCMODE | O_APPEND);
  try {
    // Without O_NONBLOCK a pipe without a reader would hold the daemon.
    return new Descriptor(openSync(`/proc/self/fd/${fd}`, flags | O_NOCTTY | O_NONBLOCK));
  } catch {
    return null;
  }
}
