import { openSync, readFileSync, statfsSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { PIDFS_MAGIC, Pidfd } from './pidfd.ts';
import { startProgram } from './spawn.ts';
import { SyscallProgram } from './syscall-program.ts';
import { P_PID, WEXITED, WNOHANG, waitid } from './waitid.ts';

/** The optional features of this kernel. Found by trying each one, because distributions backport features to older versions. */
export interface Features {
  /** waitid on a nonblocking pidfd fails with EAGAIN (5.10). On older kernels the daemon stores the flag and emulates it. */
  nonblocking: boolean;
  /** Pidfds have unique pidfs inodes, which identify a process even if its pid is reused (6.9). */
  inode: boolean;
  /** A pidfd can signal the process group that its process leads, even after the process was reaped (6.9). */
  groupSignal: boolean;
  /** PIDFD_GET_INFO (6.13). */
  info: boolean;
  /** PIDFD_GET_INFO gives the exit status of a process that is not a child of this process (6.15). */
  exitStatus: boolean;
}

/** The first kernel version with each feature, for error messages. */
export const since: Record<keyof Features, string> = {
  nonblocking: '5.10',
  inode: '6.9',
  groupSignal: '6.9',
  info: '6.13',
  exitStatus: '6.15',
};

/**
 * Probes every feature on this process and on one short-lived child.
 * @throws {Error} on a kernel before 5.4, which lacks waitid on a pidfd; or if a seccomp filter or a sysctl forbids a required call
 */
export function probe(): Features {
  using self = openSelf();
  requireWaitid(self);
  const exited = endedChild();
  const features = {
    nonblocking: works(() => Pidfd.open(process.pid, true).close()),
    inode: statfsSync(`/proc/self/fd/${self.fd}`).type === PIDFS_MAGIC,
    // ESRCH means that this process leads no group, so the flag is supported. An older kernel rejects the flag with EINVAL.
    groupSignal: works(() => self.signal(0, 'group'), 'ESRCH'),
    info: works(() => self.parent()),
    exitStatus: exited.exitStatus() !== null,
  };
  exited.close();
  return features;
}

function openSelf(): Pidfd {
  try {
    const self = Pidfd.open(process.pid);
    self.signal(0);
    return self;
  } catch (error) {
    if (isErrno(error, 'EPERM'))
      throw new Error('a seccomp filter forbids pidfd_open or pidfd_send_signal: allow them for waitd');
    throw tooOld(error);
  }
}

/** A kernel that supports P_PIDFD answers ECHILD, because no process is its own child. */
function requireWaitid(self: Pidfd): void {
  try {
    self.waitid(WEXITED | WNOHANG);
  } catch (error) {
    if (!isErrno(error, 'ECHILD')) throw tooOld(error);
  }
}

function tooOld(cause: unknown): Error {
  const release = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return new Error(
    `waitd needs Linux 5.4 or later (waitid on a pidfd), and this is ${release}: run it on a newer kernel. (${String(cause)})`,
  );
}

/**
 * Starts a child that exits at once and reaps it. The child starts as the fork server does, so this also shows that spawning works.
 * @returns a pidfd on the reaped child
 * @throws {Error} if files in memory may not be executed
 */
function endedChild(): Pidfd {
  using nothing = new Descriptor(openSync('/dev/null', 'r+'));
  const program = new SyscallProgram();
  program.call('exit_group', [0]);
  try {
    const pid = startProgram(program, 'waitd-probe', nothing);
    const child = Pidfd.open(pid);
    waitid(P_PID, pid, WEXITED); // blocks, but only until the child has exited
    return child;
  } catch (error) {
    if (isErrno(error, 'EACCES'))
      throw new Error('files in memory may not be executed here: waitd needs the sysctl vm.memfd_noexec to be 0 or 1');
    throw error;
  }
}

function works(attempt: () => void, ...alsoFine: string[]): boolean {
  try {
    attempt();
    return true;
  } catch (error) {
    return isErrno(error, ...alsoFine);
  }
}
