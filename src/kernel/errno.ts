import { constants } from 'node:os';

const numbers = constants.errno as Record<string, number>;
// EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP share a number: the first name of man 3 errno wins.
const aliases = new Set(['EWOULDBLOCK', 'ENOTSUP']);
const names = new Map(
  Object.entries(numbers)
    .filter(([name]) => !aliases.has(name))
    .map(([name, number]) => [number, name]),
);
names.set(66, 'EREMOTE'); // PIDFD_GET_INFO on a process of another pid namespace (7.0); Node does not list it

/** The Linux name of an errno, `E<number>` for one that has none here. */
export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

/** A system call that failed: which one, and with what. */
export class SystemError extends Error {
  readonly syscall: string;
  readonly errno: string;

  /** @param number the value of errno */
  constructor(syscall: string, number: number) {
    const errno = errnoName(number);
    super(`${syscall}: ${errno}`);
    this.name = 'SystemError';
    this.syscall = syscall;
    this.errno = errno;
  }
}

/** True if the error is this errno, be it from our own system calls or from one that Node made. */
export function isErrno(error: unknown, ...wanted: string[]): boolean {
  if (error instanceof SystemError) return wanted.includes(error.errno);
  return error instanceof Error && 'code' in error && wanted.includes(String(error.code));
}
