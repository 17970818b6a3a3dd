import { PROGRAM_FD } from '../kernel/spawn.ts';
import { Label, SyscallProgram, WordOf } from '../kernel/syscall-program.ts';

/** The name of a keeper in /proc and ps(1). */
export const NAME = 'waitd-keeper';

/** Its descriptors: the socket is 0, what a message brings becomes 1, then the register, then the pipes. */
const RECEIVED = 1;
export const REGISTER = 2;
export const FIRST_SLOT = 3;

const NOTHING = 0;
const SIG_SETMASK = 2;
const SIGSET_SIZE = 8; // the kernel's own
const PR_SET_NAME = 15;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const AFTER_ZERO = 9;
const O_CLOEXEC = 0o2000000; // Node does not list it

const [place, next, wait, end] = [new Label(), new Label(), new Label(), new Label()];
export const keeperProgram = makeKeeperProgram();

/**
 * Makes the program of a keeper. Each message brings one descriptor, which replaces the one in the slot that the message names. It also
 * says what the keeper does when the daemon has closed the socket: end, or wait to be killed by the next daemon.
 */
function makeKeeperProgram(): SyscallProgram {
  const program = new SyscallProgram();
  program.call('close', [PROGRAM_FD]);
  program.call('setsid', []);
  program.call('prctl', [PR_SET_NAME, program.text(NAME)]);
  program.call('chdir', [program.text('/')]);
  // SIGTERM ends it, so that it does not delay a service manager that stops everything.
  program.call('rt_sigprocmask', [SIG_SETMASK, program.words([NOTHING]), NOTHING, SIGSET_SIZE]);
  // The slot is received into the operand of dup3(2), and the address into the label of the next call. The descriptor gets the lowest
  // free number.
  const parts = program.words([new WordOf(place, 2), 8, new WordOf(next, AFTER_ZERO), 8]); // two struct iovec
  const control = program.bytes(Buffer.alloc(24)); // struct cmsghdr with one descriptor
  const message = program.words([NOTHING, NOTHING, parts, 2, control, 24, NOTHING]); // struct msghdr
  program.place(next);
  program.call('recvmsg', [0, message, MSG_CMSG_CLOEXEC], { next: place, zero: end, failed: wait });
  program.place(place);
  program.call('dup3', [RECEIVED, NOTHING, O_CLOEXEC]);
  program.call('close', [RECEIVED], { next, failed: next });
  program.place(wait);
  program.call('ppoll', [NOTHING, 0, NOTHING, NOTHING, SIGSET_SIZE], { next: wait, failed: wait });
  program.place(end);
  program.call('exit_group', [0]);
  return program;
}

/**
 * Makes a message that places a descriptor in a slot.
 * @param isLast whether the keeper holds no pipe then, and so ends with the daemon
 */
export function placing(slot: number, isLast: boolean): Buffer {
  const body = Buffer.alloc(16);
  body.writeBigUInt64LE(BigInt(slot), 0);
  body.writeBigUInt64LE(BigInt(keeperProgram.addressOf(isLast ? end : wait)), 8);
  return body;
}
