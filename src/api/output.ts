import type { Reservation } from '../clients/quotas.ts';
import type { Handles } from '../handles/handles.ts';
import type { Stream } from '../model/process.ts';
import type { Outputs } from '../output/outputs.ts';
import { type OutputReading, readOutput } from '../output/read-output.ts';
import type { Call, Operation } from './operation.ts';

interface Parts {
  handles: Handles;
  outputs: Outputs;
}

/** Operations on captured output. */
export class OutputOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Requires that the client may see the handle. @throws {Problem} EBADF, ESTALE */
  requireHandle({ client }: Pick<Call, 'client'>, id: string): void {
    this.#parts.handles.get(client, id);
  }

  /** Begins to read a captured stream. */
  readonly read: Operation<{ id: string; stream: Stream }, Promise<OutputReading>> = {
    run: async (call, { id, stream }) =>
      readOutput(this.#parts.outputs, this.#parts.handles.get(call.client, id), stream, call.abortSignal),
  };

  /**
   * Reserves the quota of a reader that follows a stream.
   * @returns a reservation to dispose of when the connection has closed
   * @throws {Problem} EDQUOT
   */
  reserve({ client }: Pick<Call, 'client'>): Reservation {
    return client.reserve('sockets');
  }
}
