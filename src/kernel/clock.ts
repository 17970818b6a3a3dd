import { bind, checked } from './libc.ts';

const clockGettime = bind('int clock_gettime(int clock, void *result)');

/** include/uapi/linux/time.h. */
const CLOCK_BOOTTIME = 7;

/** A struct timespec on 64-bit: seconds, then nanoseconds. */
const result = Buffer.alloc(16);

/**
 * Returns the milliseconds since boot, with a fraction, on CLOCK_BOOTTIME (clock_getres(2)). Nobody can set this clock, and it counts
 * suspended time, so ages and deadlines are measured on it. `Date.now()` jumps with the wall clock and is for show alone.
 * A value means nothing beyond its boot: keep it beside the boot id.
 *
 * `/proc/PID/stat` tells process starts on the same clock, in hundredths of a second.
 */
export function boottimeMs(): number {
  checked('clock_gettime', clockGettime(CLOCK_BOOTTIME, result));
  return Number(result.readBigInt64LE(0)) * 1000 + Number(result.readBigInt64LE(8)) / 1e6;
}
