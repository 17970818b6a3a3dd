import { constants, fchmodSync, fchownSync, openSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, bindAside, checked } from './libc.ts';

const ioctl = bind('int ioctl(int fd, unsigned long request, void *argument)');
const ioctlOnThread = bindAside('ioctl', 'int ioctl(int fd, unsigned long request, void *argument)');
const ioctlNumber = bind('int ioctl(int fd, unsigned long request, long argument)');
const read = bind('long read(int fd, void *bytes, size_t length)');

const TCGETS = 0x5401;
const TIOCSWINSZ = 0x5414;
const TIOCGSID = 0x5429;
const TIOCSPTLCK = 0x4004_5431;
const TIOCGPTPEER = 0x5441;
const O_CLOEXEC = 0o2000000;

/** In struct termios of the kernel: four words of flags, the line discipline, then the characters. */
const CHARACTERS_AT = 17;
const VEOF = 4;
const VDISABLE = 0;

/** A window size in characters. */
export interface Size {
  rows: number;
  cols: number;
}

/**
 * Creates a pseudoterminal (pts(4)), close-on-exec. Its slave is opened through the master, so it needs no path below /dev/pts.
 * @returns the master, nonblocking, and the slave, blocking
 * @throws {SystemError | Error} with the errno of open(2): EMFILE, ENFILE, ENOMEM; ENOSPC beyond kernel.pty.max; ENOENT, EACCES and
 *   others where the machine has no terminals
 */
export function openTerminal(size: Size): { master: Descriptor; slave: Descriptor } {
  const { O_RDWR, O_NOCTTY, O_NONBLOCK } = constants;
  const master = new Descriptor(openSync('/dev/ptmx', O_RDWR | O_NOCTTY | O_NONBLOCK));
  try {
    const unlocked = Buffer.alloc(4);
    checked('ioctl', ioctl(master.fd, TIOCSPTLCK, unlocked));
    checked('ioctl', ioctl(master.fd, TIOCSWINSZ, winsizeOf(size)));
    const slave = checked('ioctl', ioctlNumber(master.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    return { master, slave: new Descriptor(slave) };
  } catch (error) {
    master.close();
    throw error;
  }
}

/**
 * Returns the pid of the leader of the session to which a terminal belongs (tty_ioctl(4), TIOCGSID).
 * @returns `null` if it belongs to none any more, or to one of another pid namespace
 */
export function sessionOf(master: Descriptor): number | null {
  const pid = Buffer.alloc(4);
  if (ioctl(master.fd, TIOCGSID, pid) === -1) return null;
  return pid.readInt32LE() || null;
}

/** Gives a terminal to another user, so that a program of that user can open its path, as grantpt(3) does. */
export function giveTerminal(slave: Descriptor, uid: number): void {
  fchmodSync(slave.fd, 0o620);
  fchownSync(slave.fd, uid, -1);
}

/**
 * Sets the size of a terminal. If that changes, the kernel sends SIGWINCH to the foreground process group (tty_ioctl(4)). It runs on a
 * thread of libuv's pool: the kernel locks the size while it copies it to a program, which that can make take long.
 * @param master may not be closed before this resolves
 */
export async function setSize(master: Descriptor, size: Size): Promise<void> {
  await ioctlOnThread(master.fd, TIOCSWINSZ, winsizeOf(size));
}

function winsizeOf({ rows, cols }: Size): Buffer {
  const winsize = Buffer.alloc(8); // struct winsize
  winsize.writeUInt16LE(rows, 0);
  winsize.writeUInt16LE(cols, 2);
  return winsize;
}

/**
 * Reads what the programs on a terminal have written.
 * @returns the number of bytes; `null` if there are none now, 0 once no process has the slave open and all was read
 */
export function readTerminal(master: Descriptor, into: Buffer): number | null {
  try {
    return checked('read', read(master.fd, into, into.length));
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return null;
    if (isErrno(error, 'EIO')) return 0;
    throw error;
  }
}

/**
 * Returns the EOF character of a terminal, as its programs have set it; `null` if they have disabled it. It runs on a thread, as {@link setSize}: the kernel locks the
 * settings while a program reads its terminal.
 * @param master the kernel answers for the terminal behind it (tty_ioctl(4)). It may not be closed before this resolves.
 */
export async function eofCharacterOf(master: Descriptor): Promise<Buffer | null> {
  const settings = Buffer.alloc(64); // struct termios
  await ioctlOnThread(master.fd, TCGETS, settings);
  const eof = settings.subarray(CHARACTERS_AT + VEOF, CHARACTERS_AT + VEOF + 1);
  return eof[0] === VDISABLE ? null : eof;
}
