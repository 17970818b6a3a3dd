import { boottimeMs } from '../kernel/clock.ts';

/** What the journal stores of its clock. */
export interface StoredClock {
  boot: string;
  /** Milliseconds to add to CLOCK_BOOTTIME of that boot. */
  base: number;
  /** The latest moment that was stored. */
  last: number;
}

/**
 * The clock by which all records of the journal age, in milliseconds. It runs on CLOCK_BOOTTIME, so setting the wall clock changes no age.
 * After a boot it continues from the last stored moment: nothing expires while the machine is off. It begins as Unix time, which older
 * journals use.
 */
export class JournalClock {
  readonly boot: string;
  readonly base: number;

  /** @param stored `null` for a new journal, or one of a version without this clock */
  constructor(boot: string, stored: StoredClock | null) {
    const elapsed = boottimeMs();
    this.boot = boot;
    if (stored === null) this.base = Date.now() - elapsed;
    else if (stored.boot !== boot) this.base = stored.last;
    // It must not run backwards: a time namespace may have another offset (time_namespaces(7)).
    else this.base = Math.max(stored.base, stored.last - elapsed);
  }

  now(): number {
    return Math.floor(this.base + boottimeMs());
  }
}
