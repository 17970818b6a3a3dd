import { bind, checked } from './libc.ts';

const clockGettime = bind('int clock_gettime(int clock, void *result)');

/** include/uapi/linux/time.h. */
const CLOCK_BOOTTIME = 7;

/** A struct timespec on 64-bit: seconds, then nanoseconds. */
const result = Buffer.alloc(16);

/**
 * Reads CLOCK_BOOTTIME (clock_getres(2)). Ages and deadlines use this clock: it cannot be set and includes suspended time.
 * `Date.now()` follows the wall clock and is for display only. `/proc/PID/stat` gives process start times on CLOCK_BOOTTIME too.
 * @returns milliseconds since boot, with a fraction; valid for one boot only, so store it with the boot id
 */
export function boottimeMs(): number {
  checked('clock_gettime', clockGettime(CLOCK_BOOTTIME, result));
  return Number(result.readBigInt64LE(0)) * 1000 + Number(result.readBigInt64LE(8)) / 1e6;
}
