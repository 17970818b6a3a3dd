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

/** Captured output. */
export class OutputOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** @throws {Problem} EBADF, ESTALE */
  requireHandle({ client }: Pick<Call, 'client'>, id: string): void {
    this.#parts.handles.get(client, id);
  }

  /** Begins to read a captured stream. */
  readonly read: Operation<{ id: string; stream: Stream }, Promise<OutputReading>> = {
    run: async (call, { id, stream }) =>
      readOutput(this.#parts.outputs, this.#parts.handles.get(call.client, id), stream, call.abortSignal),
  };

  /**
   * Takes the place of a reader that follows a stream.
   * @returns to be disposed of when its connection has closed
   * @throws {Problem} EDQUOT
   */
  reserve({ client }: Pick<Call, 'client'>): Reservation {
    return client.reserve('sockets');
  }
}
