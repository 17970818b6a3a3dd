import { constants } from 'node:os';

const numbers = constants.errno as Record<string, number>;
// These two share a number with EAGAIN and EOPNOTSUPP, the names that errno(3) lists first.
const aliases = new Set(['EWOULDBLOCK', 'ENOTSUP']);
const names = new Map(
  Object.entries(numbers)
    .filter(([name]) => !aliases.has(name))
    .map(([name, number]) => [number, name]),
);
// Node.js does not list EREMOTE. PIDFD_GET_INFO fails with it for a process of another pid namespace (7.0).
names.set(66, 'EREMOTE');

/** Returns the Linux name of an errno, or `E<number>` if it is unknown. */
export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

/** The error of a failed system call: the call's name and its errno. */
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

/** Reports whether an error, from this folder or from Node.js, has one of the given errnos. */
export function isErrno(error: unknown, ...wanted: string[]): boolean {
  if (error instanceof SystemError) return wanted.includes(error.errno);
  return error instanceof Error && 'code' in error && wanted.includes(String(error.code));
}
