import type { WaitEvent } from '../kernel/waitid.ts';

/** One client's reading of a child's stops and continues. */
interface Reader {
  /** Handles and parked waits. */
  holds: number;
  unread: WaitEvent | null;
}

/** The reports of one process as a later image of the daemon takes them up. */
export interface StopRecord {
  /** The stop that it is in. */
  stop: WaitEvent | null;
  /** By client. */
  unread: Record<string, WaitEvent>;
}

/**
 * The stops and continues of one child, of which each client reads each once, as if it alone were the parent. Of several that a client
 * has not read the latest remains: the kernel's own rule.
 */
export class StopReports {
  #current: WaitEvent | null = null;
  readonly #readers = new Map<string, Reader>();

  /** The stop that the process is in, if the kernel has reported it. */
  get current(): WaitEvent | null {
    return this.#current;
  }

  /** Counts a handle or a parked wait of a client. The first one on a stopped process finds that stop unread. */
  hold(client: string): void {
    const reader = this.#readers.get(client);
    if (reader === undefined) this.#readers.set(client, { holds: 1, unread: this.#current });
    else reader.holds += 1;
  }

  /** Counts one less. */
  release(client: string): void {
    const reader = this.#readers.get(client);
    if (reader === undefined) return;
    reader.holds -= 1;
    if (reader.holds === 0) this.#readers.delete(client);
  }

  /** Takes a report of the kernel. */
  report(event: WaitEvent): void {
    this.#current = event.siginfo.code === 'CLD_CONTINUED' ? null : event;
    for (const reader of this.#readers.values()) reader.unread = event;
  }

  /** Returns what a client has not read yet. */
  unread(client: string): WaitEvent | null {
    return this.#readers.get(client)?.unread ?? null;
  }

  markRead(client: string): void {
    const reader = this.#readers.get(client);
    if (reader !== undefined) reader.unread = null;
  }

  /** Everything, for the next image of the daemon. */
  get record(): StopRecord {
    const unread: StopRecord['unread'] = {};
    for (const [client, { unread: event }] of this.#readers) if (event !== null) unread[client] = event;
    return { stop: this.#current, unread };
  }

  /** Takes up what an earlier image knew, once the handles are attached. */
  restore({ stop, unread }: StopRecord): void {
    this.#current = stop;
    for (const [client, reader] of this.#readers) reader.unread = unread[client] ?? null;
  }
}
