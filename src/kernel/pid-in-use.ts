import { openSync } from 'node:fs';
import { constants } from 'node:os';
import { Descriptor } from './descriptor.ts';
import { SystemError } from './errno.ts';
import { bind, lastErrno } from './libc.ts';

const fcntl = bind('int fcntl(int fd, int command, long argument)');
const F_SETOWN = 8;

let probe: Descriptor | null = null;

/**
 * Whether a number is in use as the id of a process, a process group or a session. While it is, the kernel gives it to no new process:
 * so of a process that has been reaped it tells whether its group or its session has members left.
 *
 * F_SETOWN looks the number up in any of these roles, and fails with ESRCH where it is free (f_setown() in fs/fcntl.c). Nothing is sent:
 * the descriptor is /dev/null's, without O_ASYNC.
 */
export function isPidInUse(pid: number): boolean {
  probe ??= new Descriptor(openSync('/dev/null', 'r'));
  // Asked at every exit: an error object for the usual answer would cost more than the call.
  if (fcntl(probe.fd, F_SETOWN, pid) === -1) {
    const errno = lastErrno();
    if (errno === constants.errno.ESRCH) return false;
    throw new SystemError('fcntl', errno);
  }
  fcntl(probe.fd, F_SETOWN, 0);
  return true;
}
