import { isErrno } from '../kernel/errno.ts';
import type { Notifier, Passed } from '../kernel/notify.ts';
import { Pidfd } from '../kernel/pidfd.ts';

/** When a full queue is tried again, in milliseconds. */
const RETRY_MS = 5;

const PREFIX = 'waitd-';

/**
 * The most bytes of names. They come back in one variable, LISTEN_FDNAMES, and the kernel executes no program with a variable over
 * 128 KiB (MAX_ARG_STRLEN): one descriptor too many in the store would keep the service from starting. The rest is for the names of
 * sockets.
 */
const LONGEST_NAMES = 120 * 1024;

/**
 * Pidfds that the service manager keeps for the next daemon, one for each process: FDSTORE of sd_notify(3). After a crash they tell what
 * could not be learnt otherwise: how a process ended whose parent had died.
 *
 * FDPOLL=0, because a manager that polls them drops each when its process ends, just when it is needed.
 *
 * Processes are named by the journal's number for them.
 */
export class PidfdStore {
  readonly #notifier: Notifier;
  /** The processes that are stored once everything that waits has been sent. */
  readonly #kept = new Set<number>();
  /** The length of their names, each with its separator. */
  #length = 0;
  /** Messages that could not be sent yet. A descriptor to be stored is duplicated meanwhile. */
  readonly #waiting = new Map<number, Pidfd | 'remove'>();
  #retry: NodeJS.Timeout | null = null;

  /** @param kept the processes that are stored already */
  constructor(notifier: Notifier, kept: Iterable<number>) {
    this.#notifier = notifier;
    for (const id of kept) this.#count(id);
  }

  /**
   * Stores the pidfd of a process. It is left out if its name has no room, or if it must wait and no descriptor is free. A stored one is
   * not sent again, because the manager compares each new descriptor with all that it has.
   */
  put(id: number, pidfd: Pidfd): void {
    if (this.#kept.has(id) || this.#length + lengthOf(id) > LONGEST_NAMES) return;
    if (this.#waiting.size > 0 || !this.#store(id, pidfd)) {
      const own = duplicateIfPossible(pidfd);
      if (own === null) return;
      this.#waiting.set(id, own);
      this.#later();
    }
    this.#count(id);
  }

  remove(id: number): void {
    if (!this.#kept.delete(id)) return;
    this.#length -= lengthOf(id);
    const waiting = this.#waiting.get(id);
    if (waiting instanceof Pidfd) {
      waiting.close();
      this.#waiting.delete(id);
    } else if (this.#waiting.size > 0 || !this.#remove(id)) {
      this.#waiting.set(id, 'remove');
      this.#later();
    }
  }

  /** Removes all but these processes: those that an earlier daemon left and that are not needed. */
  keepOnly(ids: ReadonlySet<number>): void {
    for (const id of this.#kept) if (!ids.has(id)) this.remove(id);
  }

  #count(id: number): void {
    this.#kept.add(id);
    this.#length += lengthOf(id);
  }

  #later(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#flush();
    }, RETRY_MS);
  }

  #flush(): void {
    for (const [id, what] of this.#waiting) {
      if (!(what === 'remove' ? this.#remove(id) : this.#store(id, what))) {
        this.#later();
        return;
      }
      if (what !== 'remove') what.close();
      this.#waiting.delete(id);
    }
  }

  #store(id: number, pidfd: Pidfd): boolean {
    return this.#notifier.send(`FDSTORE=1\nFDPOLL=0\nFDNAME=${nameOf(id)}`, pidfd);
  }

  #remove(id: number): boolean {
    return this.#notifier.send(`FDSTOREREMOVE=1\nFDNAME=${nameOf(id)}`);
  }

  /**
   * Sends what still waits, as far as possible.
   * @returns the processes that are stored then
   */
  close(): number[] {
    this.#flush();
    if (this.#retry !== null) clearTimeout(this.#retry);
    for (const [id, what] of this.#waiting) {
      if (what === 'remove') this.#kept.add(id);
      else {
        what.close();
        this.#kept.delete(id);
      }
    }
    this.#waiting.clear();
    return [...this.#kept];
  }
}

function nameOf(id: number): string {
  return PREFIX + id;
}

function lengthOf(id: number): number {
  return nameOf(id).length + 1;
}

function duplicateIfPossible(pidfd: Pidfd): Pidfd | null {
  try {
    return pidfd.duplicate();
  } catch (error) {
    if (isErrno(error, 'EMFILE')) return null;
    throw error;
  }
}

/** Returns the pidfds that an earlier daemon has stored, by the journal's number of the process. */
export function storedPidfds(passed: readonly Passed[]): Map<number, Pidfd> {
  const stored = new Map<number, Pidfd>();
  for (const { name, fd, isPidfd } of passed) {
    if (!isPidfd || !/^waitd-\d{1,15}$/.test(name)) continue;
    const id = Number(name.slice(PREFIX.length));
    stored.get(id)?.close(); // the manager allows a name to occur twice
    stored.set(id, new Pidfd(fd));
  }
  return stored;
}
