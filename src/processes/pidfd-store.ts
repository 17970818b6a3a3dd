import { isErrno } from '../kernel/errno.ts';
import type { Notifier, Passed } from '../kernel/notify.ts';
import { Pidfd } from '../kernel/pidfd.ts';

/** When a full queue is tried again. */
const RETRY_MS = 5;

const PREFIX = 'waitd-';

/**
 * Names come back in one variable, LISTEN_FDNAMES, and the kernel starts nothing that is given a longer one than 128 KiB
 * (MAX_ARG_STRLEN): with one descriptor too many in its store, a service could not be started again at all. What is left over
 * is for the names of sockets.
 */
const LONGEST_NAMES = 120 * 1024;

/**
 * Pidfds that the service manager keeps for the next daemon, one for each process: FDSTORE of sd_notify(3). After a crash they
 * come back, and with them what nobody could tell otherwise: how a process ended that had no parent any more.
 *
 * FDPOLL=0, because a manager that polls them drops each when its process ends, which is just when it is wanted.
 *
 * Processes go by the journal's number for them.
 */
export class PidfdStore {
  readonly #notifier: Notifier;
  /** What is stored, once all that waits has been sent. */
  readonly #kept = new Set<number>();
  /** Of the names of what is kept, each with its separator. */
  #length = 0;
  /** What could not be sent yet; a descriptor to be stored is held by a number of its own meanwhile. */
  readonly #waiting = new Map<number, Pidfd | 'remove'>();
  #retry: NodeJS.Timeout | null = null;

  /** @param kept what is there already */
  constructor(notifier: Notifier, kept: Iterable<number>) {
    this.#notifier = notifier;
    for (const id of kept) this.#count(id);
  }

  /**
   * Does without where there is no room for its name, or no descriptor for what must wait. What is there already is not sent
   * again: the manager compares each new descriptor with all that it has.
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

  /** Removes what an earlier daemon left and nobody has taken up. */
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
   * Sends what still waits, as far as it can be sent.
   * @returns what is in the store then
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

/** What an earlier daemon had stored, by the journal's number of the process. */
export function storedPidfds(passed: readonly Passed[]): Map<number, Pidfd> {
  const stored = new Map<number, Pidfd>();
  for (const { name, fd, isPidfd } of passed) {
    if (!isPidfd || !/^waitd-\d{1,15}$/.test(name)) continue;
    const id = Number(name.slice(PREFIX.length));
    stored.get(id)?.close(); // a name may be there twice, as far as the manager is concerned
    stored.set(id, new Pidfd(fd));
  }
  return stored;
}
