import { Caller } from './caller.ts';
import { post } from './connection.ts';

const request = post('/v1/handles', { spawn: { argv: ['/bin/true'] } });

/** Processes that are started one after the other, for the events that they make: as fast as the daemon goes. */
export class Flood {
  #stopped = false;
  readonly #over: Promise<unknown>;

  /** @param inFlight how many requests wait for their answer at a time */
  constructor(socket: string, inFlight: number) {
    this.#over = Promise.all(Array.from({ length: inFlight }, () => this.#spawn(socket)));
    // Whoever stops it is told.
    this.#over.catch(() => {});
  }

  /** @throws where a spawn has failed */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  async #spawn(socket: string): Promise<void> {
    using caller = await Caller.open(socket);
    while (!this.#stopped) await caller.ask(request, 201);
  }
}
