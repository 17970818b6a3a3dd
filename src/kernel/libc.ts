import koffi from 'koffi';
import { SystemError } from './errno.ts';

/** The C library that this process already has loaded, glibc or musl, so that no file name is needed. */
const libc = koffi.load(null);

// biome-ignore lint/suspicious/noExplicitAny: koffi checks the arguments against the C prototype at run time.
type CFunction = (...args: any[]) => number;

/**
 * Binds a C function. Declare pointers as `void *` and pass Buffers: a koffi struct costs two to four times as much.
 * Pass checked integers only: koffi converts NaN to 0 and dereferences a number that is passed as a pointer.
 */
export function bind(prototype: string): CFunction {
  return libc.func(prototype) as CFunction;
}

/**
 * Binds a system call that may block on a disk, to run on a thread of libuv's pool. Descriptors and Buffers must outlive the call.
 * @returns a function that rejects with a {@link SystemError} if the call returns -1
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

/** Binds a C function that some C libraries lack. @returns `undefined` if this one lacks it */
export function bindIfThere(prototype: string): CFunction | undefined {
  try {
    return bind(prototype);
  } catch {
    return undefined;
  }
}

/**
 * Returns the result of a system call, or throws if it is -1. Must wrap the call itself: any later call may overwrite errno.
 * @throws {SystemError} with the call's name and errno
 */
export function checked(syscall: string, result: number): number {
  if (result === -1) throw new SystemError(syscall, koffi.errno());
  return result;
}

/** Returns the errno of the immediately preceding call; defined only if that call returned -1. */
export function lastErrno(): number {
  return koffi.errno();
}

/**
 * Selects the value for this architecture.
 * @throws {Error} on an unsupported architecture
 */
export function byArchitecture(numbers: { x64: number; arm64: number }): number {
  if (process.arch !== 'x64' && process.arch !== 'arm64')
    throw new Error(`waitd runs on x64 and arm64, not on ${process.arch}`);
  return numbers[process.arch];
}

/**
 * Calls syscall(2) with up to four integer arguments. The prototype is not variadic, because a fixed one is faster and both calling
 * conventions pass integers in the same registers.
 */
export const syscall = bind('long syscall(long number, long a, long b, long c, long d)');
