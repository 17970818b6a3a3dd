import { Caller } from './caller.ts';
import { post } from './connection.ts';

const request = post('/v1/handles', { spawn: { argv: ['/bin/true'] } });

/** Starts processes one after another as fast as the daemon allows, to produce events. */
export class Flood {
  #stopped = false;
  readonly #over: Promise<unknown>;

  /** @param inFlight the number of concurrent requests */
  constructor(socket: string, inFlight: number) {
    this.#over = Promise.all(Array.from({ length: inFlight }, () => this.#spawn(socket)));
    // An error is reported by the stop function.
    this.#over.catch(() => {});
  }

  /** @throws if a spawn has failed */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  async #spawn(socket: string): Promise<void> {
    using caller = await Caller.open(socket);
    while (!this.#stopped) await caller.ask(request, 201);
  }
}
