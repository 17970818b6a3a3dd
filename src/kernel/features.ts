import { openSync, readFileSync, statfsSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { PIDFS_MAGIC, Pidfd } from './pidfd.ts';
import { startProgram } from './spawn.ts';
import { SyscallProgram } from './syscall-program.ts';
import { P_PID, WEXITED, WNOHANG, waitid } from './waitid.ts';

/** What this kernel can do, found out by doing it: distributions backport, so a version number proves nothing. */
export interface Features {
  /** waitid on a nonblocking pidfd answers EAGAIN (5.10). Without it the daemon keeps the flag and maps, with the same result. */
  nonblocking: boolean;
  /** Pidfds are pidfs inodes: an identity that survives the pid (6.9). */
  inode: boolean;
  /** Signals to the process group that a process leads, even once it has been reaped (6.9). */
  groupSignal: boolean;
  /** PIDFD_GET_INFO (6.13). */
  info: boolean;
  /** The exit status of a process whose parent is somebody else (6.15). */
  exitStatus: boolean;
}

/** The first kernel that has a feature, for the message that says it is missing. */
export const since: Record<keyof Features, string> = {
  nonblocking: '5.10',
  inode: '6.9',
  groupSignal: '6.9',
  info: '6.13',
  exitStatus: '6.15',
};

/**
 * Tries every call once, on this process and on one short-lived child.
 * @throws {Error} below Linux 5.4, which has no waitid on a pidfd: nothing of this daemon would work
 */
export function probe(): Features {
  using self = openSelf();
  requireWaitid(self);
  const exited = endedChild();
  const features = {
    nonblocking: works(() => Pidfd.open(process.pid, true).close()),
    inode: statfsSync(`/proc/self/fd/${self.fd}`).type === PIDFS_MAGIC,
    // We need not lead a group: ESRCH says that too. A kernel without the scope refuses the flag itself, EINVAL.
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

/** ECHILD is the right answer: no process is its own child. */
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
    `waitd needs Linux 5.4 (waitid on a pidfd), and this is ${release}: run it on a newer kernel. (${String(cause)})`,
  );
}

/**
 * A pidfd on a child that has ended and been reaped, made as all children are.
 * @throws {Error} in one sentence: this daemon can start nothing
 */
function endedChild(): Pidfd {
  using nothing = new Descriptor(openSync('/dev/null', 'r+'));
  const program = new SyscallProgram();
  program.call('exit_group', [0]);
  try {
    const pid = startProgram(program, 'waitd-probe', nothing);
    const child = Pidfd.open(pid);
    waitid(P_PID, pid, WEXITED); // the only wait that blocks: it ends at once
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
