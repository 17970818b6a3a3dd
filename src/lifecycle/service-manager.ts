import type { Notifier } from '../kernel/notify.ts';

/** The minimum time between two updates of the status. */
const STATUS_INTERVAL_MS = 1000;

/** The delay before a retry on a full queue. */
const RETRY_MS = 5;

/** The maximum length of a reason in bytes, because a message must fit into one small datagram. */
const LONGEST_REASON = 300;

/** The margin added to a time extension. */
const EXTRA_MS = 5000;

/**
 * Notifies the service manager of the daemon's state (sd_notify(3)): READY, RELOADING, STOPPING, WATCHDOG and changes of STATUS. Does
 * nothing without a service manager.
 */
export class ServiceManager {
  readonly #notifier: Notifier | null;
  readonly #status: () => string;
  readonly #unsent: string[] = [];
  #lastStatus = '';
  #timer: NodeJS.Timeout | null = null;
  #watchdog: NodeJS.Timeout | null = null;

  /** @param status returns the status in one line */
  constructor(notifier: Notifier | null, status: () => string) {
    this.#notifier = notifier;
    this.#status = status;
  }

  /** Notifies that the daemon serves. */
  ready(): void {
    this.#lastStatus = this.#status();
    this.#notify(`READY=1\nSTATUS=${this.#lastStatus}`);
    this.#startWatchdog();
  }

  /** Notifies that an upgrade in place begins. */
  reloading(): void {
    // The manager matches the time on CLOCK_MONOTONIC with its own request to reload.
    this.#notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** Notifies that the upgrade is refused and the daemon continues. */
  refused(reason: string): void {
    this.#lastStatus = '';
    const [line = ''] = reason.split('\n');
    this.#notify(`READY=1\nSTATUS=${this.#status()}; upgrade refused: ${cut(line)}`);
  }

  /** Notifies that the daemon stops. @param withinMs the time that the stop may take; `null` requests no extension */
  stopping(withinMs: number | null): void {
    const extend = withinMs === null ? '' : `\nEXTEND_TIMEOUT_USEC=${(withinMs + EXTRA_MS) * 1000}`;
    this.#notify(`STOPPING=1\nSTATUS=stopping${extend}`);
  }

  /** Schedules an update of the status. Cheap enough for every change; an idle daemon has no timer. */
  changed(): void {
    if (this.#notifier === null || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      const status = this.#status();
      if (status === this.#lastStatus || this.#lastStatus === '') return;
      this.#lastStatus = status;
      this.#notify(`STATUS=${status}`);
    }, STATUS_INTERVAL_MS).unref();
  }

  /** Sends WATCHDOG=1 at half the manager's interval for as long as the event loop runs (sd_watchdog_enabled(3)). */
  #startWatchdog(): void {
    const { WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = process.env;
    if (this.#notifier === null || this.#watchdog !== null || !/^[1-9]\d{0,14}$/.test(usec ?? '')) return;
    if (pid !== undefined && Number(pid) !== process.pid) return;
    this.#notify('WATCHDOG=1');
    this.#watchdog = setInterval(() => this.#notify('WATCHDOG=1'), Math.max(1, Number(usec) / 2000));
  }

  #notify(state: string): void {
    if (this.#notifier === null) return;
    this.#unsent.push(state);
    if (this.#unsent.length === 1) this.#send();
  }

  /** Sends the queued messages in order, until the manager's queue is full. */
  #send(): void {
    while (this.#unsent.length > 0) {
      if (!this.#notifier!.send(this.#unsent[0]!)) {
        setTimeout(() => this.#send(), RETRY_MS);
        return;
      }
      this.#unsent.shift();
    }
  }
}

/** Cuts a text to LONGEST_REASON bytes of UTF-8, without a partial character at the end. */
function cut(text: string): string {
  return Buffer.from(text).subarray(0, LONGEST_REASON).toString().replace(/�$/, '');
}
