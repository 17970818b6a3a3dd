import { type Descriptor, keepBelow } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { makePipe } from '../kernel/pipe.ts';
import type { OpenDescription } from '../model/process.ts';
import { Input } from './input.ts';

export interface InputsParts {
  epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** Pipes and terminals get lower numbers than this. */
  descriptors: number;
}

/** The inputs of spawned processes to which requests can write, by the journal's number of the description. */
export class Inputs {
  readonly #parts: InputsParts;
  readonly #inputs = new Map<number, Input>();

  constructor(parts: InputsParts) {
    this.#parts = parts;
  }

  /** Returns the input of a description; `undefined` if it was closed. */
  of({ id }: OpenDescription): Input | undefined {
    return this.#inputs.get(id);
  }

  /**
   * Makes the pipe for a process that is about to start. Call {@link close} if it does not.
   * @returns the read end, which the caller closes once the process has its own
   * @throws {SystemError} EMFILE, ENFILE
   */
  openPipe(id: number): Descriptor {
    const { reader, writer } = makePipe();
    try {
      writer.nonblocking = true;
      this.#hold(id, new Input('pipe', keepBelow(writer, this.#parts.descriptors), this.#parts.epoll));
      return reader;
    } catch (error) {
      reader.close();
      writer.close();
      throw error;
    }
  }

  #hold(id: number, input: Input): void {
    this.#inputs.set(id, input);
    input.onClosed(() => this.#inputs.delete(id));
  }

  /** Closes the pipe of a description without a handle. A terminal stays open, since its end would hang up its processes. */
  release({ id, input }: OpenDescription): void {
    if (input === 'pipe') this.close(id);
  }

  /** Closes the input of a description. Its process reads an end of file. */
  close(id: number): void {
    this.#inputs.get(id)?.close();
  }
}
