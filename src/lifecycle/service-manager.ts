import type { Notifier } from '../kernel/notify.ts';

/** How often its status is told at most. */
const STATUS_INTERVAL_MS = 1000;

/** When a full queue is tried again. */
const RETRY_MS = 5;

/** What is told of a reason: all of a message goes in one small datagram. */
const LONGEST_REASON = 300;

/** Beyond what was asked for, when more time is asked for. */
const EXTRA_MS = 5000;

/**
 * Tells the service manager how the daemon is, sd_notify(3): READY, RELOADING, STOPPING, WATCHDOG and, when it changes, STATUS. Without
 * a service manager it does nothing.
 */
export class ServiceManager {
  readonly #notifier: Notifier | null;
  readonly #status: () => string;
  readonly #unsent: string[] = [];
  #told = '';
  #timer: NodeJS.Timeout | null = null;
  #watchdog: NodeJS.Timeout | null = null;

  /** @param status one line that says what the daemon holds */
  constructor(notifier: Notifier | null, status: () => string) {
    this.#notifier = notifier;
    this.#status = status;
  }

  /** The daemon serves, or serves again. */
  ready(): void {
    this.#told = this.#status();
    this.#tell(`READY=1\nSTATUS=${this.#told}`);
    this.#feedWatchdog();
  }

  /** An upgrade in place begins. */
  reloading(): void {
    // CLOCK_MONOTONIC, by which the manager knows that this is the reload that it asked for.
    this.#tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** The upgrade came to nothing. */
  refused(reason: string): void {
    this.#told = '';
    const [line = ''] = reason.split('\n');
    this.#tell(`READY=1\nSTATUS=${this.#status()}; upgrade refused: ${cut(line)}`);
  }

  /** @param withinMs how long that may take; `null` where nobody waits for anything */
  stopping(withinMs: number | null): void {
    const extend = withinMs === null ? '' : `\nEXTEND_TIMEOUT_USEC=${(withinMs + EXTRA_MS) * 1000}`;
    this.#tell(`STOPPING=1\nSTATUS=stopping${extend}`);
  }

  /** What the status counts may have changed. Called often: an idle daemon has no timer. */
  changed(): void {
    if (this.#notifier === null || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      const status = this.#status();
      if (status === this.#told || this.#told === '') return;
      this.#told = status;
      this.#tell(`STATUS=${status}`);
    }, STATUS_INTERVAL_MS).unref();
  }

  /** As long as the event loop turns, twice as often as the manager asks for (sd_watchdog_enabled(3)). */
  #feedWatchdog(): void {
    const { WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = process.env;
    if (this.#notifier === null || this.#watchdog !== null || !/^[1-9]\d{0,14}$/.test(usec ?? '')) return;
    if (pid !== undefined && Number(pid) !== process.pid) return;
    this.#tell('WATCHDOG=1');
    this.#watchdog = setInterval(() => this.#tell('WATCHDOG=1'), Math.max(1, Number(usec) / 2000));
  }

  #tell(state: string): void {
    if (this.#notifier === null) return;
    this.#unsent.push(state);
    if (this.#unsent.length === 1) this.#send();
  }

  /** In their order, as its queue takes them. */
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

/** Bytes count, not characters, and half a character is none. */
function cut(text: string): string {
  return Buffer.from(text).subarray(0, LONGEST_REASON).toString().replace(/�$/, '');
}
