import type { Notifier, Passed } from '../kernel/notify.ts';
import { Pidfd } from '../kernel/pidfd.ts';

/** When a full queue is tried again. */
const RETRY_MS = 5;

const PREFIX = 'waitd-';

/**
 * Pidfds that the service manager keeps for the next daemon, one for each process: FDSTORE of sd_notify(3). After a crash they
 * come back, and with them what nobody could tell otherwise: how a process ended that had no parent any more.
 *
 * FDPOLL=0, because a manager that polls them drops each when its process ends, which is just when it is wanted.
 */
export class PidfdStore {
  readonly #notifier: Notifier;
  /** What could not be sent yet, by name; a descriptor to be stored is held by a number of its own meanwhile. */
  readonly #waiting = new Map<string, Pidfd | 'remove'>();
  #retry: NodeJS.Timeout | null = null;

  constructor(notifier: Notifier) {
    this.#notifier = notifier;
  }

  /** @param id the journal's number of the process */
  put(id: number, pidfd: Pidfd): void {
    const name = PREFIX + id;
    if (this.#waiting.size === 0 && this.#store(name, pidfd)) return;
    this.#waiting.set(name, pidfd.duplicate());
    this.#later();
  }

  remove(id: number): void {
    const name = PREFIX + id;
    const waiting = this.#waiting.get(name);
    if (waiting instanceof Pidfd) {
      waiting.close();
      this.#waiting.delete(name);
    } else if (this.#waiting.size > 0 || !this.#remove(name)) {
      this.#waiting.set(name, 'remove');
      this.#later();
    }
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

  #store(name: string, pidfd: Pidfd): boolean {
    return this.#notifier.send(`FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`, pidfd);
  }

  #remove(name: string): boolean {
    return this.#notifier.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Sends what still waits, as far as it can be sent. */
  close(): void {
    this.#flush();
    if (this.#retry !== null) clearTimeout(this.#retry);
    for (const what of this.#waiting.values()) if (what !== 'remove') what.close();
    this.#waiting.clear();
  }
}

/** What an earlier daemon had stored, by the journal's number of the process. */
export function storedPidfds(passed: readonly Passed[]): Map<number, Pidfd> {
  const stored = passed.filter(({ name, isPidfd }) => isPidfd && name.startsWith(PREFIX));
  return new Map(stored.map(({ name, fd }) => [Number(name.slice(PREFIX.length)), new Pidfd(fd)]));
}
