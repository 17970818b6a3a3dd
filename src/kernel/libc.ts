import koffi from 'koffi';
import { SystemError } from './errno.ts';

/** The C library this very process runs on, glibc or musl: no file name to guess. */
const libc = koffi.load(null);

// biome-ignore lint/suspicious/noExplicitAny: koffi checks the arguments against the C prototype at run time.
type CFunction = (...args: any[]) => number;

/**
 * Binds a C function. Pointers are declared `void *` and given as Buffers: a koffi struct costs two to four times as much.
 * koffi checks little (NaN becomes 0, a number given as a pointer is dereferenced), so callers pass checked integers.
 */
export function bind(prototype: string): CFunction {
  return libc.func(prototype) as CFunction;
}

/**
 * Binds a system call that may wait for a disk: it runs on a thread of libuv's pool. Descriptors and Buffers must outlive the call.
 * @returns a function that rejects with a {@link SystemError} where the call gives -1
 */
export function bindAside(syscall: string, prototype: string): (...args: Parameters<CFunction>) => Promise<number> {
  const call = bind(prototype) as CFunction & { async(...args: unknown[]): void };
  return (...args) =>
    new Promise((resolve, reject) => {
      call.async(...args, (error: Error | null, result: number) => {
        if (error !== null) reject(error);
        else if (result === -1) reject(new SystemError(syscall, koffi.errno()));
        else resolve(result);
      });
    });
}

/** Like {@link bind}, for a function that not every C library has; `undefined` where it is missing. */
export function bindIfThere(prototype: string): CFunction | undefined {
  try {
    return bind(prototype);
  } catch {
    return undefined;
  }
}

/**
 * Turns the -1 of a system call into an error, at the call.
 * @throws {SystemError} with the call's name and errno
 */
export function checked(syscall: string, result: number): number {
  if (result === -1) throw new SystemError(syscall, koffi.errno());
  return result;
}

/** Of the call right before, where that gave -1. */
export function lastErrno(): number {
  return koffi.errno();
}

/**
 * A number that differs between architectures.
 * @throws {Error} on an architecture nobody has written it down for
 */
export function byArchitecture(numbers: { x64: number; arm64: number }): number {
  if (process.arch !== 'x64' && process.arch !== 'arm64')
    throw new Error(`waitd runs on x64 and arm64, not on ${process.arch}`);
  return numbers[process.arch];
}

/**
 * `syscall(2)` with up to four integer arguments. Declared without `...`: on Linux integer arguments travel in the same
 * registers either way, and a fixed prototype is faster.
 */
export const syscall = bind('long syscall(long number, long a, long b, long c, long d)');
