import { type Descriptor, keepBelow } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { makePipe } from '../kernel/pipe.ts';
import type { Handle, InputKind, OpenDescription } from '../model/process.ts';
import type { MoveQueue } from '../output/move-queue.ts';
import type { DescriptorStore } from '../processes/descriptor-store.ts';
import { Input } from './input.ts';
import { inputName, type LeftInput } from './stored-inputs.ts';

/** An input for the next image of the daemon. */
export interface HandedInput {
  description: number;
  kind: InputKind;
  fd: number;
}

/** Whose input it is, and of what kind. */
export interface HeldInput {
  /** The journal's number of the description. */
  id: number;
  client: string;
  kind: InputKind;
}

export interface InputsParts {
  epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** Keeps them while no daemon runs; `null` without a service manager. */
  store: DescriptorStore | null;
  /** Runs calls on pipes, a few at a time, the clients in turn. */
  moves: MoveQueue;
  /** Pipes and terminals get lower numbers than this. */
  descriptors: number;
}

/** The inputs of spawned processes to which requests can write, by the journal's number of the description. */
export class Inputs {
  readonly #parts: InputsParts;
  readonly #inputs = new Map<number, Input>();
  readonly #stored = new Set<string>();

  constructor(parts: InputsParts) {
    this.#parts = parts;
  }

  /** The names of what the service manager stores. */
  get storedNames(): Iterable<string> {
    return this.#stored;
  }

  /** Returns the input of a description; `undefined` if it was closed. */
  of({ id }: Pick<OpenDescription, 'id'>): Input | undefined {
    return this.#inputs.get(id);
  }

  /** Returns the open inputs, by the journal's number of the description. */
  all(): MapIterator<[number, Input]> {
    return this.#inputs.entries();
  }

  /**
   * Makes the pipe for a process that is about to start. Call {@link close} if it does not.
   * @returns the read end, which the caller closes once the process has its own
   * @throws {SystemError} EMFILE, ENFILE
   */
  openPipe(id: number, client: string): Descriptor {
    const { reader, writer } = makePipe();
    try {
      writer.nonblocking = true;
      this.hold({ id, client, kind: 'pipe' }, keepBelow(writer, this.#parts.descriptors));
      return reader;
    } catch (error) {
      reader.close();
      writer.close();
      throw error;
    }
  }

  /**
   * Adds an input. It closes one that a failed try to start the process has left.
   * @param descriptor nonblocking; owned by the input
   */
  hold({ id, client, kind }: HeldInput, descriptor: Descriptor): Input {
    this.close(id);
    const { epoll, moves } = this.#parts;
    const input = new Input(kind, descriptor, epoll, (call) => moves.take(client, call));
    this.#inputs.set(id, input);
    input.onClosed(() => this.#inputs.delete(id));
    return input;
  }

  /** Has the service manager keep the input of a process that runs now. */
  track(description: OpenDescription): void {
    const input = this.of(description);
    const name = inputName(description);
    const { store } = this.#parts;
    if (input === undefined || name === null || store === null) return;
    store.put(name, input.descriptor);
    this.#stored.add(name);
    input.onClosed(() => {
      store.remove(name);
      this.#stored.delete(name);
    });
  }

  /**
   * Takes over what earlier daemons have left.
   * @param ownerOf returns a handle on the description of a number, if it has an input
   */
  resume(left: Iterable<LeftInput>, ownerOf: (id: number) => Handle | undefined): void {
    for (const { description: id, kind, descriptor, inode } of left) {
      const owner = ownerOf(id);
      const client = owner?.client ?? '';
      const isKnown = owner?.description.input === kind && (inode === null || inode === owner.process.inode);
      // A terminal that was handed over stays open without a handle too.
      if (isKnown || (kind === 'tty' && inode === null)) this.hold({ id, client, kind }, descriptor);
      else void this.#parts.moves.take(client, () => descriptor.closeAside());
      if (isKnown) this.track(owner.description);
    }
  }

  /** Hands the inputs over; their descriptors stay open over the next execve(2). */
  handOver(): HandedInput[] {
    return [...this.#inputs].map(([description, { kind, descriptor }]) => {
      descriptor.keepOverExec();
      return { description, kind, fd: descriptor.fd };
    });
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
