import type { Descriptor } from '../kernel/descriptor.ts';
import type { Stream } from '../model/process.ts';

/** The write ends of the pipes of a new process. Disposing closes them, once the process has its own. */
export class WriteEnds implements Disposable {
  readonly #ends: ReadonlyMap<Stream, Descriptor>;

  constructor(ends: ReadonlyMap<Stream, Descriptor>) {
    this.#ends = ends;
  }

  readonly of = (stream: Stream): Descriptor => this.#ends.get(stream)!;

  [Symbol.dispose](): void {
    for (const end of this.#ends.values()) end.close();
  }
}
