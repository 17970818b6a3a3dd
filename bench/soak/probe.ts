import { setTimeout } from 'node:timers/promises';
import { Caller } from '../clients/caller.ts';
import { post } from '../clients/connection.ts';
import { percentile } from '../statistics.ts';

/** Interval between probes: short enough for a p99 between two samples. */
const PAUSE_MS = 10;

/** Sends the same small request repeatedly beside other load: a `waitid` that answers EAGAIN. */
export class Probe {
  #latenciesUs: number[] = [];
  #stopped = false;
  readonly #over: Promise<void>;

  /** @param handle a nonblocking handle on a live process */
  constructor(socket: string, handle: string) {
    this.#over = this.#ask(socket, post(`/v1/handles/${handle}/waitid`));
    // An error is reported by the stop function.
    this.#over.catch(() => {});
  }

  /** Returns the latencies since the last call; `null` if there are none. */
  take(): { p50Us: number; p99Us: number } | null {
    const latencies = this.#latenciesUs;
    this.#latenciesUs = [];
    if (latencies.length === 0) return null;
    return { p50Us: percentile(latencies, 50), p99Us: percentile(latencies, 99) };
  }

  /** @throws if an answer was not the expected one */
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
