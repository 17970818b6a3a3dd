import { setTimeout } from 'node:timers/promises';
import { Caller } from '../clients/caller.ts';
import { post } from '../clients/connection.ts';
import { percentile } from '../statistics.ts';

/** So that there are enough between two samples for a p99. */
const PAUSE_MS = 10;

/** Asks the same small question again and again beside whatever else goes on: `waitid` that answers EAGAIN. */
export class Probe {
  #latenciesUs: number[] = [];
  #stopped = false;
  readonly #over: Promise<void>;

  /** @param handle a nonblocking one, on a process that lives */
  constructor(socket: string, handle: string) {
    this.#over = this.#ask(socket, post(`/v1/handles/${handle}/waitid`));
    // Whoever stops it is told.
    this.#over.catch(() => {});
  }

  /** Of what was asked since the last time; `null` where that was nothing. */
  take(): { p50Us: number; p99Us: number } | null {
    const latencies = this.#latenciesUs;
    this.#latenciesUs = [];
    if (latencies.length === 0) return null;
    return { p50Us: percentile(latencies, 50), p99Us: percentile(latencies, 99) };
  }

  /** @throws where an answer was not the one that was expected */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  async #ask(socket: string, request: string): Promise<void> {
    using caller = await Caller.open(socket);
    while (!this.#stopped) {
      const before = performance.now();
      await caller.ask(request, 409);
      this.#latenciesUs.push((performance.now() - before) * 1000);
      await setTimeout(PAUSE_MS);
    }
  }
}
