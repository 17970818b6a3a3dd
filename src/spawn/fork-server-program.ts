import { constants } from 'node:os';
import { PROGRAM_FD } from '../kernel/spawn.ts';
import { REPORT_SIZE } from '../kernel/syscall-interpreter.ts';
import { Label, REPORT, SyscallProgram, WordOf } from '../kernel/syscall-program.ts';

/** The address at which a child maps its table. */
export const CHILD_ORIGIN = 0x1000_0000;

/** The descriptors of a child beside 0, 1 and 2: its table, and the socket on which it reports. An exec closes both. */
export const TABLE_FD = 4;
export const REPLY_FD = 5;

const CLONE_PARENT = 0x8000;
const SIGCHLD = constants.signals.SIGCHLD;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_FIXED = 0x12;
const PR_SET_NAME = 15;

/** Signals that the C library reserves for itself, and leaves ignored in what it spawns. */
const LIBRARY_SIGNALS = [32, 33];
const SIGSET_SIZE = 8; // the kernel's own
const NOTHING = 0;

/**
 * Makes the program of the fork server: it receives a table of system calls and five descriptors, forks, and goes on. The child maps
 * the table and executes it.
 */
export function serverProgram(): SyscallProgram {
  const program = new SyscallProgram();
  const receiveNext = new Label();
  const refused = new Label();
  const letGo = new Label();
  const child = new Label();
  const map = new Label();
  const unmapped = new Label();
  const end = new Label();
  program.call('close', [PROGRAM_FD]);
  program.call('prctl', [PR_SET_NAME, program.text('waitd-fork')]);
  program.call('chdir', [program.text('/')]);
  const byDefault = program.bytes(Buffer.alloc(32)); // struct kernel_sigaction
  for (const signal of LIBRARY_SIGNALS) program.call('rt_sigaction', [signal, byDefault, NOTHING, SIGSET_SIZE]);

  program.place(receiveNext);
  // The size of the table is received into the operand of mmap(2). The descriptors get the lowest free numbers, 1 to 5.
  const size = program.words([new WordOf(map, 2), 8]); // struct iovec
  const control = program.bytes(Buffer.alloc(40)); // struct cmsghdr with five descriptors
  const message = program.words([NOTHING, NOTHING, size, 1, control, 40, NOTHING]); // struct msghdr
  program.call('recvmsg', [0, message, MSG_CMSG_CLOEXEC], { zero: end, failed: end });
  program.call('clone', [CLONE_PARENT | SIGCHLD, NOTHING, NOTHING, NOTHING, NOTHING], {
    next: letGo,
    zero: child,
    failed: refused,
  });

  program.place(refused);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
  program.place(letGo);
  for (let fd = 1; fd < REPLY_FD; fd += 1) program.call('close', [fd]);
  program.call('close', [REPLY_FD], { next: receiveNext, failed: receiveNext });

  program.place(child);
  program.call('getpid', []);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE], { failed: end });
  for (let fd = 0; fd < 3; fd += 1) program.call('dup3', [fd + 1, fd, NOTHING], { failed: end });
  program.call('close', [3]);
  program.place(map);
  program.call('mmap', [CHILD_ORIGIN, NOTHING, PROT_READ_WRITE, MAP_PRIVATE_FIXED, TABLE_FD, NOTHING], {
    next: CHILD_ORIGIN,
    failed: unmapped,
  });
  program.place(unmapped);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
  program.place(end);
  program.call('exit_group', [127]);
  return program;
}
