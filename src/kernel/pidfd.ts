import { constants, fstatSync, readFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { Descriptor } from './descriptor.ts';
import { bind, checked, lastErrno, syscall } from './libc.ts';
import { look } from './pipe.ts';
import { askWaitid, P_PIDFD, type WaitEvent, waitid } from './waitid.ts';

// System calls added since 5.0 have the same number on every architecture.
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;

/** The f_type of pidfs, the file system of pidfds (6.9; statfs(2)). */
export const PIDFS_MAGIC = 0x5049_4446;

/** The flags of pidfd_send_signal(2): to the process, or to the process group that it leads (6.9). */
const scopes = { process: 0, group: 4 } as const;
export type SignalScope = keyof typeof scopes;

// The request encodes the size of struct pidfd_info: 72 bytes, its second version. Only fields of the first version (64) are read.
const PIDFD_GET_INFO = 0xc048_ff0b;
const PIDFD_INFO_EXIT = 1 << 3;
const ioctl = bind('int ioctl(int fd, unsigned long request, void *argument)');
const info = Buffer.alloc(72);

/** Owns a pidfd, which refers to one process even if its pid is reused. */
export class Pidfd extends Descriptor {
  /**
   * Opens a process with pidfd_open(2), close-on-exec.
   * @param nonblocking whether to set O_NONBLOCK (5.10)
   * @throws {SystemError} ESRCH; ENOENT or (before 6.16) EINVAL for the id of a thread; EMFILE, ENFILE, ENOMEM
   */
  static open(pid: number, nonblocking = false): Pidfd {
    const flags = nonblocking ? constants.O_NONBLOCK : 0;
    return new Pidfd(checked('pidfd_open', syscall(SYS_pidfd_open, pid, flags, 0, 0)));
  }

  /** The pid in this process's pid namespace, from /proc: -1 once reaped, 0 if the process is outside the namespace. */
  get pid(): number {
    return Number(/^Pid:\s*(-?\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${this.fd}`, 'utf8'))?.[1]);
  }

  /** Reports whether the process has ended. A zombie has. */
  get hasEnded(): boolean {
    return look(this).ready;
  }

  /** Duplicates the descriptor. Both share the open file description and its O_NONBLOCK. */
  override duplicate(): Pidfd {
    return new Pidfd(this.duplicated());
  }

  /** The pidfs inode as a decimal string. It is unique per boot, so it distinguishes processes that had the same pid (6.9). */
  get inode(): string {
    return fstatSync(this.fd, { bigint: true }).ino.toString();
  }

  /**
   * Calls waitid(2) with P_PIDFD. The call must not block: pass WNOHANG unless the description is nonblocking.
   * @param options bits of waitid(2)
   * @returns the event, or `null` if the child has nothing to report
   * @throws {SystemError} EAGAIN, ECHILD, EINVAL
   */
  waitid(options: number): WaitEvent | null {
    return waitid(P_PIDFD, this.fd, options);
  }

  /** Like {@link waitid}, but returns EAGAIN and ECHILD instead of throwing them. */
  askWaitid(options: number): ReturnType<typeof askWaitid> {
    return askWaitid(P_PIDFD, this.fd, options);
  }

  /**
   * Sends a signal with pidfd_send_signal(2). On a zombie it succeeds without effect. After the reap it fails with ESRCH, but scope
   * `group` still reaches the remaining members of the group.
   * @param number the signal's number; 0 only checks for existence and permission
   * @throws {SystemError} ESRCH, EPERM; EINVAL for scope `group` before 6.9
   */
  signal(number: number, scope: SignalScope = 'process'): void {
    checked('pidfd_send_signal', syscall(SYS_pidfd_send_signal, this.fd, number, 0, scopes[scope]));
  }

  /**
   * Reports whether the process leads a process group that still has members, by signal 0 to the group. The signal fails with ESRCH
   * if the group is empty, and with EINVAL before 6.9.
   */
  leadsGroup(): boolean {
    // Runs at every exit, where an error object for the usual result would cost more than the call.
    const result = syscall(SYS_pidfd_send_signal, this.fd, 0, 0, scopes.group);
    return result !== -1 || lastErrno() === osConstants.errno.EPERM;
  }

  /**
   * Returns the parent's pid with PIDFD_GET_INFO (6.13).
   * @throws {SystemError} ESRCH once reaped; ENOTTY or EINVAL on older kernels
   */
  parent(): number {
    info.fill(0);
    checked('ioctl', ioctl(this.fd, PIDFD_GET_INFO, info));
    return info.readUInt32LE(24);
  }

  /**
   * Returns the wait status of a reaped process, even of one that is not a child, with PIDFD_GET_INFO (6.15).
   * @returns the status as wait(2) encodes it, or `null` before the reap and on older kernels
   */
  exitStatus(): number | null {
    info.fill(0);
    info.writeUInt32LE(PIDFD_INFO_EXIT, 0);
    if (ioctl(this.fd, PIDFD_GET_INFO, info) === -1) return null;
    return (info.readUInt32LE(0) & PIDFD_INFO_EXIT) === 0 ? null : info.readInt32LE(60);
  }
}
