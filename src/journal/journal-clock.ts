import { boottimeMs } from '../kernel/clock.ts';

/** What is kept of the clock, beside what it times. */
export interface StoredClock {
  boot: string;
  /** What is added to CLOCK_BOOTTIME of that boot. */
  base: number;
  /** A moment that had come. */
  last: number;
}

/**
 * The clock by which everything in the journal ages, in milliseconds. It runs on CLOCK_BOOTTIME, so a wall clock that is set changes no
 * age. Over a boot it goes on from the last moment that was kept: a machine that is off lets nothing expire, whatever its wall clock
 * says afterwards. It begins as Unix time, which older journals hold.
 */
export class JournalClock {
  readonly boot: string;
  readonly base: number;

  /** @param stored `null` for a new journal, or one from before there was this clock */
  constructor(boot: string, stored: StoredClock | null) {
    const elapsed = boottimeMs();
    this.boot = boot;
    if (stored === null) this.base = Date.now() - elapsed;
    else if (stored.boot !== boot) this.base = stored.last;
    // Never backwards: a time namespace may have an offset of its own (time_namespaces(7)).
    else this.base = Math.max(stored.base, stored.last - elapsed);
  }

  now(): number {
    return Math.floor(this.base + boottimeMs());
  }
}
