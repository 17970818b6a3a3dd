import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const timerfdCreate = bind('int timerfd_create(int clock, int flags)');
const timerfdSettime = bind('int timerfd_settime(int fd, int flags, void *value, void *old)');

const CLOCK_BOOTTIME = 7;
const TFD_NONBLOCK = 0o4000;
const TFD_CLOEXEC = 0o2000000;
const TFD_TIMER_ABSTIME = 1;

/** struct itimerspec on 64-bit: the interval, then the time, as seconds and nanoseconds each. */
const value = Buffer.alloc(32);

/**
 * A timer on CLOCK_BOOTTIME (timerfd_create(2)). It becomes readable when it expires, or on resume if it expired during suspend.
 * A Node.js timer does not count suspended time and fires that much later.
 */
export class BootTimer extends Descriptor {
  /** @throws {SystemError} EMFILE, ENFILE, ENOMEM */
  constructor() {
    super(checked('timerfd_create', timerfdCreate(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC)));
  }

  /**
   * Arms or disarms the timer.
   * @param at expiration in milliseconds since boot; a past time expires at once; `null` disarms the timer
   */
  set(at: number | null): void {
    // timerfd_settime(2) disarms the timer if the time is zero.
    const time = at === null ? 0 : Math.max(at, 1);
    const seconds = Math.floor(time / 1000);
    value.writeBigInt64LE(BigInt(seconds), 16);
    value.writeBigInt64LE(BigInt(Math.floor((time - seconds * 1000) * 1e6)), 24);
    checked('timerfd_settime', timerfdSettime(this.fd, TFD_TIMER_ABSTIME, value, null));
  }
}
