import { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Notifier, Passed } from '../kernel/notify.ts';
import { Pidfd } from '../kernel/pidfd.ts';

/** When a full queue is tried again, in milliseconds. */
const RETRY_MS = 5;

/**
 * The most bytes of names. They come back in one variable, LISTEN_FDNAMES, and the kernel executes no program with a variable over
 * 128 KiB (MAX_ARG_STRLEN): one descriptor too many in the store would keep the service from starting. The rest is for the names of
 * sockets.
 */
const LONGEST_NAMES = 120 * 1024;

/**
 * Descriptors that the service manager keeps for the next daemon: FDSTORE of sd_notify(3). After a crash a pidfd tells what could not be
 * learnt otherwise: how a process ended whose parent had died. The input of a process stays open, so that it meets no end of file.
 *
 * FDPOLL=0, because a manager that polls them drops each pidfd when its process ends, just when it is needed.
 */
export class DescriptorStore {
  readonly #notifier: Notifier;
  /** The names of what is stored once everything that waits has been sent. */
  readonly #kept = new Set<string>();
  /** Their length, each with its separator. */
  #length = 0;
  /** Messages that could not be sent yet. A descriptor to be stored is duplicated meanwhile. */
  readonly #waiting = new Map<string, Descriptor | 'remove'>();
  #retry: NodeJS.Timeout | null = null;

  /** @param kept the names of what is stored already */
  constructor(notifier: Notifier, kept: Iterable<string>) {
    this.#notifier = notifier;
    for (const name of kept) this.#count(name);
  }

  /**
   * Stores a descriptor. It is left out if its name has no room, or if it must wait and no descriptor is free. A stored one is
   * not sent again, because the manager compares each new descriptor with all that it has.
   */
  put(name: string, descriptor: Descriptor): void {
    if (this.#kept.has(name) || this.#length + lengthOf(name) > LONGEST_NAMES) return;
    if (this.#waiting.size > 0 || !this.#store(name, descriptor)) {
      const own = duplicateIfPossible(descriptor);
      if (own === null) return;
      this.#waiting.set(name, own);
      this.#later();
    }
    this.#count(name);
  }

  remove(name: string): void {
    if (!this.#kept.delete(name)) return;
    this.#length -= lengthOf(name);
    const waiting = this.#waiting.get(name);
    if (waiting instanceof Descriptor) {
      waiting.close();
      this.#waiting.delete(name);
    } else if (this.#waiting.size > 0 || !this.#remove(name)) {
      this.#waiting.set(name, 'remove');
      this.#later();
    }
  }

  /** Removes all but these: what an earlier daemon left and is not needed. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const name of this.#kept) if (!names.has(name)) this.remove(name);
  }

  #count(name: string): void {
    this.#kept.add(name);
    this.#length += lengthOf(name);
  }

  #later(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#flush();
    }, RETRY_MS);
  }

  #flush(): void {
    for (const [name, what] of this.#waiting) {
      if (!(what === 'remove' ? this.#remove(name) : this.#store(name, what))) {
        this.#later();
        return;
      }
      if (what !== 'remove') what.close();
      this.#waiting.delete(name);
    }
  }

  #store(name: string, descriptor: Descriptor): boolean {
    return this.#notifier.send(`FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`, descriptor);
  }

  #remove(name: string): boolean {
    return this.#notifier.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /**
   * Sends what still waits, as far as possible.
   * @returns the names of what is stored then
   */
  close(): string[] {
    this.#flush();
    if (this.#retry !== null) clearTimeout(this.#retry);
    for (const [name, what] of this.#waiting) {
      if (what === 'remove') this.#kept.add(name);
      else {
        what.close();
        this.#kept.delete(name);
      }
    }
    this.#waiting.clear();
    return [...this.#kept];
  }
}

const PIDFD_NAME = /^waitd-(\d{1,15})$/;

const lengthOf = (name: string): number => name.length + 1;

function duplicateIfPossible(descriptor: Descriptor): Descriptor | null {
  try {
    return descriptor.duplicate();
  } catch (error) {
    if (isErrno(error, 'EMFILE')) return null;
    throw error;
  }
}

/** Returns the name of the pidfd of a process. @param id the journal's number of the process */
export const pidfdName = (id: number): string => `waitd-${id}`;

/** Returns the processes whose pidfds are among stored names. */
export function pidfdsIn(names: readonly string[]): number[] {
  return names.flatMap((name) => PIDFD_NAME.exec(name)?.[1] ?? []).map(Number);
}

/** Returns the pidfds that an earlier daemon has stored, by the journal's number of the process. */
export function storedPidfds(passed: readonly Passed[]): Map<number, Pidfd> {
  const stored = new Map<number, Pidfd>();
  for (const { name, fd, kind } of passed) {
    const [id] = pidfdsIn([name]);
    if (kind !== 'pidfd' || id === undefined) continue;
    stored.get(id)?.close(); // the manager allows a name to occur twice
    stored.set(id, new Pidfd(fd));
  }
  return stored;
}
