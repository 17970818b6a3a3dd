import { closeSync, constants, readdirSync, readFileSync } from 'node:fs';
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

/** A descriptor that is owned: closed once, and never used after. */
export class Descriptor implements Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws {Error} after close: a closed number may already be somebody else's descriptor */
  get fd(): number {
    if (this.#fd === -1) throw new Error('descriptor is closed');
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd === -1;
  }

  /** O_NONBLOCK of the open file description. */
  get nonblocking(): boolean {
    return (checked('fcntl', fcntl(this.fd, F_GETFL, 0)) & constants.O_NONBLOCK) !== 0;
  }

  set nonblocking(on: boolean) {
    const flags = checked('fcntl', fcntl(this.fd, F_GETFL, 0));
    checked('fcntl', fcntl(this.fd, F_SETFL, on ? flags | constants.O_NONBLOCK : flags & ~constants.O_NONBLOCK));
  }

  /** Lets it live over execve(2), under its number. */
  keepOverExec(): void {
    setCloseOnExec(this.fd, false);
  }

  /** Another number for the same open file description, as dup(2) makes it. */
  protected duplicated(): number {
    return checked('fcntl', fcntl(this.fd, F_DUPFD_CLOEXEC, 3));
  }

  close(): void {
    if (this.#fd === -1) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A new number for an open file description that somebody else holds; it lives over execve(2). */
export function duplicateOverExec(fd: number): number {
  return checked('fcntl', fcntl(fd, F_DUPFD, 3));
}

/** Marks a descriptor; one that is not open is left alone. */
function setCloseOnExec(fd: number, on: boolean): void {
  const flags = fcntl(fd, F_GETFD, 0);
  if (flags !== -1) fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
}

/** RLIMIT_NOFILE: no descriptor has this number or a higher one. Node raises the soft limit to the hard one at its start. */
export function descriptorLimit(): number {
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(limit);
}

/**
 * Marks close-on-exec whatever this process was started with beyond 0, 1 and 2: a shell's or a CI runner's stray
 * descriptors would otherwise go on to every child where the C library cannot close them (musl).
 */
export function closeInherited(): void {
  for (const name of readdirSync('/proc/self/fd')) if (Number(name) > 2) setCloseOnExec(Number(name), true);
}

/**
 * The kernel gives the lowest number that is free, so a descriptor's number tells how many are taken.
 * @throws {SystemError} EMFILE, and closes it
 */
export function keepBelow<D extends Descriptor>(descriptor: D, limit: number): D {
  if (descriptor.fd < limit) return descriptor;
  descriptor.close();
  throw new SystemError('open', osConstants.errno.EMFILE);
}
