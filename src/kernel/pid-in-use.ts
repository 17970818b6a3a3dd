import { openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

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
  try {
    checked('fcntl', fcntl(probe.fd, F_SETOWN, pid));
    fcntl(probe.fd, F_SETOWN, 0);
    return true;
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return false;
    throw error;
  }
}
