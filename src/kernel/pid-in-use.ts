import { openSync } from 'node:fs';
import { constants } from 'node:os';
import { Descriptor } from './descriptor.ts';
import { SystemError } from './errno.ts';
import { bind, lastErrno } from './libc.ts';

const fcntl = bind('int fcntl(int fd, int command, long argument)');
const F_SETOWN = 8;

let probe: Descriptor | null = null;

/**
 * Reports whether a number is the id of a process, a process group or a session. The kernel does not reuse such a number, so for a
 * reaped process this tells whether its group or session still has members.
 *
 * F_SETOWN looks the number up in all these roles, and fails with ESRCH if it is free (f_setown() in fs/fcntl.c). It sends no signal,
 * because the descriptor is /dev/null without O_ASYNC.
 * @throws {SystemError} any errno other than ESRCH
 */
export function isPidInUse(pid: number): boolean {
  probe ??= new Descriptor(openSync('/dev/null', 'r'));
  // Runs at every exit, where an error object for the usual result would cost more than the call.
  if (fcntl(probe.fd, F_SETOWN, pid) === -1) {
    const errno = lastErrno();
    if (errno === constants.errno.ESRCH) return false;
    throw new SystemError('fcntl', errno);
  }
  fcntl(probe.fd, F_SETOWN, 0);
  return true;
}
