import type { Filled } from '../../schemas/filled.ts';
import type { OutputTails } from '../../schemas/output.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { Handle } from '../model/process.ts';
import { inTime } from '../output/in-time.ts';
import { noTails, readTails } from '../output/output-tails.ts';
import { OUTPUT_GRACE_MS, type OutputEndParts, untilOutputEnded } from '../waits/output-end.ts';
import type { Call } from './operation.ts';

/** A caller that takes longer to read its answer no longer delays others of its client, in milliseconds. */
const SLOW_MS = 1000;

interface Parts extends OutputEndParts {
  handles: Handles;
}

/** Captured output as a part of other answers. */
export class OutputAnswers {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Reads the output so far.
   * @param most the most bytes of each stream
   * @throws {Problem} EMFILE
   */
  now(call: Call, handle: Handle, most: number): Promise<Filled<OutputTails> | 'aborted'> {
    return this.#read(call, handle, most, OUTPUT_GRACE_MS);
  }

  /**
   * Reads the output of an ended process, once that has ended too or a short time after the end of the process has passed.
   * @param timeoutMs milliseconds that the call still waits; `undefined` for no limit
   * @throws {Problem} EMFILE; ESHUTDOWN when the daemon stops
   */
  async ended(
    call: Call,
    handle: Handle,
    most: number,
    timeoutMs = Number.POSITIVE_INFINITY,
  ): Promise<Filled<OutputTails> | 'aborted'> {
    const begun = performance.now();
    const end = await untilOutputEnded(this.#parts, handle, timeoutMs, call);
    if (end === 'aborted') return 'aborted';
    return this.#read(call, handle, most, OUTPUT_GRACE_MS - (performance.now() - begun));
  }

  /**
   * As {@link ended}, or {@link now} if the process has not ended, for an answer that must be given: what cannot be read is null in it.
   * @param timeoutMs milliseconds; 0 waits for nothing
   */
  async inAnyCase(
    call: Call,
    handle: Handle,
    most: number,
    timeoutMs: number,
  ): Promise<Filled<OutputTails> | 'aborted'> {
    try {
      if (timeoutMs > 0 && handle.process.ending !== null)
        return await this.ended(call, handle, most, timeoutMs).catch((error) => {
          if (error instanceof Problem && error.errno === 'ESHUTDOWN') return this.now(call, handle, most);
          throw error;
        });
      return await this.now(call, handle, most);
    } catch (error) {
      if (error instanceof Problem) return noTails;
      throw error;
    }
  }

  /** Reads the output for a stored answer that is given again without it. The handle may have ended since. */
  again(call: Call, id: string, most: number): Promise<Filled<OutputTails> | 'aborted'> | Filled<OutputTails> {
    try {
      return this.inAnyCase(call, this.#parts.handles.get(call.client, id), most, 0);
    } catch (error) {
      if (error instanceof Problem) return noTails;
      throw error;
    }
  }

  /** Waits for its turn among the answers of its client, and keeps that until the answer is sent: they take memory for as long. */
  #read(call: Call, handle: Handle, most: number, flushMs: number): Promise<Filled<OutputTails> | 'aborted'> {
    const { promise, resolve, reject } = Promise.withResolvers<Filled<OutputTails> | 'aborted'>();
    void call.client.outputAnswers.run(async () => {
      if (call.abortSignal.aborted) return resolve('aborted');
      try {
        const tails = await readTails(this.#parts.outputs, handle.description, { most, flushMs });
        resolve(call.abortSignal.aborted ? 'aborted' : tails);
      } catch (error) {
        return reject(error);
      }
      await inTime(call.answered(), SLOW_MS);
    });
    return promise;
  }
}
