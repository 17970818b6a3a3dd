import { constants, fstatSync, readFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { Descriptor } from './descriptor.ts';
import { bind, checked, lastErrno, syscall } from './libc.ts';
import { askWaitid, P_PIDFD, type WaitEvent, waitid } from './waitid.ts';

// The same numbers on every architecture: calls since 5.0 share one table.
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;

/** The file system of pidfds (6.9), as statfs(2) names it. */
export const PIDFS_MAGIC = 0x5049_4446;

/** Whom pidfd_send_signal reaches: the process (any kernel), or the process group that it leads (6.9). */
const scopes = { process: 0, group: 4 } as const;
export type SignalScope = keyof typeof scopes;

// struct pidfd_info in its second size, 72 bytes; the first (64) is all we read, and newer kernels fill what is asked for.
const PIDFD_GET_INFO = 0xc048_ff0b;
const PIDFD_INFO_EXIT = 1 << 3;
const ioctl = bind('int ioctl(int fd, unsigned long request, void *argument)');
const info = Buffer.alloc(72);

/** One open file description on one process. */
export class Pidfd extends Descriptor {
  /**
   * pidfd_open(2), close-on-exec.
   * @param nonblocking sets O_NONBLOCK on the description (5.10)
   * @throws {SystemError} ESRCH; ENOENT or (before 6.16) EINVAL for the id of a thread; EMFILE, ENFILE, ENOMEM
   */
  static open(pid: number, nonblocking = false): Pidfd {
    const flags = nonblocking ? constants.O_NONBLOCK : 0;
    return new Pidfd(checked('pidfd_open', syscall(SYS_pidfd_open, pid, flags, 0, 0)));
  }

  /** The pid as /proc shows it to us: -1 once reaped, 0 where it is in a namespace that we do not see. */
  get pid(): number {
    return Number(/^Pid:\s*(-?\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${this.fd}`, 'utf8'))?.[1]);
  }

  duplicate(): Pidfd {
    return new Pidfd(this.duplicated());
  }

  /** The pidfs inode, a decimal string: unique per boot, so it tells a process from a later one of the same pid (6.9). */
  get inode(): string {
    return fstatSync(this.fd, { bigint: true }).ino.toString();
  }

  /**
   * waitid(P_PIDFD). It must not block: pass WNOHANG unless the description is nonblocking.
   * @param options bits of waitid(2)
   */
  waitid(options: number): WaitEvent | null {
    return waitid(P_PIDFD, this.fd, options);
  }

  /** The same, without an error for EAGAIN and ECHILD. */
  askWaitid(options: number): ReturnType<typeof askWaitid> {
    return askWaitid(P_PIDFD, this.fd, options);
  }

  /**
   * pidfd_send_signal(2). On a zombie it succeeds and does nothing; on a reaped process it is ESRCH, while scope `group`
   * still reaches the survivors of the group that it led.
   * @throws {SystemError} ESRCH, EPERM; EINVAL for scope `group` before 6.9
   */
  signal(number: number, scope: SignalScope = 'process'): void {
    checked('pidfd_send_signal', syscall(SYS_pidfd_send_signal, this.fd, number, 0, scopes[scope]));
  }

  /**
   * Whether the process leads a process group that has members, itself or survivors. Signal 0 to the group tells: ESRCH
   * when nobody is left, EINVAL on a kernel that cannot ask (before 6.9).
   */
  leadsGroup(): boolean {
    // Asked at every exit: an error object for the usual answer would cost more than the call.
    const result = syscall(SYS_pidfd_send_signal, this.fd, 0, 0, scopes.group);
    return result !== -1 || lastErrno() === osConstants.errno.EPERM;
  }

  /**
   * The parent's pid by PIDFD_GET_INFO (6.13).
   * @throws {SystemError} ESRCH once reaped; ENOTTY or EINVAL on older kernels
   */
  parent(): number {
    info.fill(0);
    checked('ioctl', ioctl(this.fd, PIDFD_GET_INFO, info));
    return info.readUInt32LE(24);
  }

  /**
   * The raw wait status of a process that has been reaped, by whomever, by PIDFD_GET_INFO (6.15).
   * @returns `null` while it is alive or a zombie, and on kernels that cannot tell
   */
  exitStatus(): number | null {
    info.fill(0);
    info.writeUInt32LE(PIDFD_INFO_EXIT, 0);
    if (ioctl(this.fd, PIDFD_GET_INFO, info) === -1) return null;
    return (info.readUInt32LE(0) & PIDFD_INFO_EXIT) === 0 ? null : info.readInt32LE(60);
  }
}
