import type { Lease, Timeout } from '../../schemas/lifetime.ts';

/** The bounds of how long a spawned process may live. */
export interface Lifetime {
  /** The start of the process, in milliseconds on CLOCK_BOOTTIME. */
  readonly startedAt: number;
  /** The start in clock ticks since boot, which identifies the process before Linux 6.9; `null` from then on. */
  readonly startTicks: number | null;
  timeout: Timeout | null;
  readonly lease: Lease | null;
}

/** Which deadlines have ended a process. Its outcome has these members, however it ends after that. */
export interface Overdue {
  readonly timedOut?: true;
  readonly leaseExpired?: true;
}
