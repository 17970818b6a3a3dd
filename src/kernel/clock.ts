import { isErrno } from './errno.ts';
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
  return read(CLOCK_BOOTTIME);
}

/** The kinds of CPU clocks of a process: all that it was charged for, the part in user mode, and what it really ran. */
const [CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED] = [0, 1, 2];

/**
 * Reads the CPU time of any process, of ended threads too (clock_getcpuclockid(3)). The scheduler's clock gives the exact sum. It is
 * divided as the kernel does for getrusage(2), by what was charged in each mode, which many kernels only count by ticks.
 * @returns microseconds, or `null` if the process does not exist
 */
export function cpuTimes(pid: number): { userUs: number; systemUs: number } | null {
  const clockOf = (kind: number): number => ~pid * 8 + kind;
  try {
    const user = read(clockOf(CPUCLOCK_VIRT));
    const all = read(clockOf(CPUCLOCK_PROF));
    const totalUs = Math.round(read(clockOf(CPUCLOCK_SCHED)) * 1000);
    const userUs = all === 0 ? totalUs : Math.round((totalUs * user) / all);
    return { userUs, systemUs: totalUs - userUs };
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ESRCH')) return null;
    throw error;
  }
}

/** @returns milliseconds */
function read(clock: number): number {
  checked('clock_gettime', clockGettime(clock, result));
  return Number(result.readBigInt64LE(0)) * 1000 + Number(result.readBigInt64LE(8)) / 1e6;
}
