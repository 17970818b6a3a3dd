import { close, closeSync, constants, readdirSync, readFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { SystemError } from './errno.ts';
import { bind, checked } from './libc.ts';

const fcntl = bind('int fcntl(int fd, int command, long argument)');
const F_DUPFD = 0;
const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;

/** Owns a file descriptor: closes it once and refuses its use afterwards. */
export class Descriptor implements Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws {Error} after close, because the kernel may have reused the number for another descriptor */
  get fd(): number {
    if (this.#fd === -1) throw new Error('descriptor is closed');
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd === -1;
  }

  /** Whether O_NONBLOCK is set on the open file description, which duplicates share (fcntl(2)). */
  get nonblocking(): boolean {
    return (checked('fcntl', fcntl(this.fd, F_GETFL, 0)) & constants.O_NONBLOCK) !== 0;
  }

  set nonblocking(on: boolean) {
    const flags = checked('fcntl', fcntl(this.fd, F_GETFL, 0));
    checked('fcntl', fcntl(this.fd, F_SETFL, on ? flags | constants.O_NONBLOCK : flags & ~constants.O_NONBLOCK));
  }

  /** Keeps the descriptor open across execve(2), with the same number. */
  keepOverExec(): void {
    setCloseOnExec(this.fd, false);
  }

  /** Duplicates the descriptor as dup(2) does, close-on-exec. @returns another one for the same open file description */
  duplicate(): Descriptor {
    return new Descriptor(this.duplicated());
  }

  protected duplicated(): number {
    return checked('fcntl', fcntl(this.fd, F_DUPFD_CLOEXEC, 3));
  }

  close(): void {
    if (this.#fd === -1) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }

  /** Closes the descriptor on a thread of libuv's pool: the kernel may have to wait for a lock of the file. */
  closeAside(): Promise<void> {
    const fd = this.#fd;
    this.#fd = -1;
    return new Promise((resolve) => (fd === -1 ? resolve() : close(fd, () => resolve())));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Duplicates a descriptor that other code owns; the duplicate stays open across execve(2).
 * @throws {SystemError} EBADF, EMFILE
 */
export function duplicateOverExec(fd: number): number {
  return checked('fcntl', fcntl(fd, F_DUPFD, 3));
}

/** Sets or clears close-on-exec. Ignores a descriptor that is not open. */
function setCloseOnExec(fd: number, on: boolean): void {
  const flags = fcntl(fd, F_GETFD, 0);
  if (flags !== -1) fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
}

/**
 * Returns the soft RLIMIT_NOFILE: every descriptor number is below it (getrlimit(2)). Node.js raises it to the hard limit at startup.
 */
export function descriptorLimit(): number {
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(limit);
}

/**
 * Sets close-on-exec on every inherited descriptor above 2. Otherwise children would inherit stray descriptors of a shell or a CI
 * runner where the C library has no posix_spawn_file_actions_addclosefrom_np (musl).
 */
export function closeInherited(): void {
  for (const name of readdirSync('/proc/self/fd')) if (Number(name) > 2) setCloseOnExec(Number(name), true);
}

/**
 * Reserves the descriptors from `limit` up. The kernel allocates the lowest free number, so the number shows how many are in use.
 * @throws {SystemError} EMFILE if the descriptor's number is not below the limit; the descriptor is closed first
 */
export function keepBelow<D extends Descriptor>(descriptor: D, limit: number): D {
  if (descriptor.fd < limit) return descriptor;
  descriptor.close();
  throw new SystemError('open', osConstants.errno.EMFILE);
}
