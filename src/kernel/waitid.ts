import { constants } from 'node:os';
import type { Rusage, Siginfo } from '../../schemas/common.ts';
import { SystemError } from './errno.ts';
import { bind, byArchitecture, checked, lastErrno } from './libc.ts';

const { EAGAIN, ECHILD } = constants.errno;

/** Option bits of waitid(2). */
export const WNOHANG = 1;
export const WSTOPPED = 2;
export const WEXITED = 4;
export const WCONTINUED = 8;
export const WNOWAIT = 0x0100_0000;

/** The idtype of waitid(2). */
export const P_ALL = 0;
export const P_PID = 1;
export const P_PIDFD = 3;

const codes: readonly (Siginfo['code'] | '')[] = [
  '',
  'CLD_EXITED',
  'CLD_KILLED',
  'CLD_DUMPED',
  'CLD_TRAPPED',
  'CLD_STOPPED',
  'CLD_CONTINUED',
];

/**
 * Reports whether an event is the end of a child. Even with WEXITED alone the kernel reports the stops of a child that the caller
 * traces, as after PTRACE_TRACEME (wait_task_stopped() in kernel/exit.c).
 */
export function isEnd({ siginfo: { code } }: WaitEvent): boolean {
  return code === 'CLD_EXITED' || code === 'CLD_KILLED' || code === 'CLD_DUMPED';
}

/** The result of waitid(2): what happened to a child, and the resources that it has used. */
export interface WaitEvent {
  siginfo: Siginfo;
  rusage: Rusage;
}

// Only the system call has the rusage argument, not the waitid of the C library.
const SYS_waitid = byArchitecture({ x64: 247, arm64: 95 });
const rawWaitid = bind('long syscall(long number, long idtype, long id, void *infop, long options, void *rusage)');

// waitid never blocks here (WNOHANG or O_NONBLOCK), so one pair of buffers serves every call. The buffers must stay valid: with a bad
// pointer the kernel reaps the child, fails with EFAULT, and the status is lost.
const info = Buffer.alloc(128);
const usage = Buffer.alloc(144);
const infoView = new DataView(info.buffer, info.byteOffset, info.length);
const usageView = new DataView(usage.buffer, usage.byteOffset, usage.length);

/** Reads a C `long`. Its counters never exceed 2^53. */
const long = (at: number): number => usageView.getUint32(at, true) + usageView.getInt32(at + 4, true) * 2 ** 32;

/**
 * Makes the system call waitid(2). The call must not block, because this thread serves every client.
 * @param idtype one of P_ALL, P_PID, P_PIDFD
 * @param id a pid or the number of a pidfd; ignored for P_ALL
 * @param options bits of waitid(2)
 * @returns the event, or `null` if waitid returned 0 without one (WNOHANG)
 * @throws {SystemError} EAGAIN, ECHILD, EINVAL, EBADF
 */
export function waitid(idtype: number, id: number, options: number): WaitEvent | null {
  checked('waitid', rawWaitid(SYS_waitid, idtype, id, info, options, usage));
  return written();
}

/**
 * Like {@link waitid}, but returns EAGAIN and ECHILD, because throwing an error costs five times the call.
 * @throws {SystemError} EINVAL, EBADF
 */
export function askWaitid(idtype: number, id: number, options: number): WaitEvent | null | 'EAGAIN' | 'ECHILD' {
  const result = rawWaitid(SYS_waitid, idtype, id, info, options, usage);
  if (result === 0) return written();
  const errno = lastErrno();
  if (errno === EAGAIN) return 'EAGAIN';
  if (errno === ECHILD) return 'ECHILD';
  throw new SystemError('waitid', errno);
}

function written(): WaitEvent | null {
  // The union of siginfo_t begins at byte 16 on 64-bit architectures. An si_pid of 0 means "no event".
  const pid = infoView.getInt32(16, true);
  if (pid === 0) return null;
  return {
    siginfo: {
      signo: 'SIGCHLD',
      code: codes[infoView.getInt32(8, true)] as Siginfo['code'],
      pid,
      uid: infoView.getUint32(20, true),
      status: infoView.getInt32(24, true),
    },
    rusage: {
      userUs: long(0) * 1_000_000 + long(8),
      systemUs: long(16) * 1_000_000 + long(24),
      maxRssKiB: long(32),
      minorFaults: long(64),
      majorFaults: long(72),
      inBlocks: long(88),
      outBlocks: long(96),
      voluntarySwitches: long(128),
      involuntarySwitches: long(136),
    },
  };
}
