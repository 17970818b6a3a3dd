import type { WindowSize } from '../../schemas/terminal.ts';
import type { Client } from '../clients/client.ts';
import { Reservation, requireQuota } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Input } from '../input/input.ts';
import type { Inputs } from '../input/inputs.ts';
import { type Descriptor, keepBelow } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { openTerminal } from '../kernel/terminal.ts';
import type { Outputs } from '../output/outputs.ts';
import { Terminal } from './terminal.ts';

export interface TerminalsParts {
  inputs: Inputs;
  outputs: Outputs;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** Their descriptors get lower numbers than this. */
  descriptors: number;
}

/** The terminals of spawned processes. They stay open until no process has them open, with or without a handle. */
export class Terminals {
  readonly #parts: TerminalsParts;
  /** The client of each open terminal, by the journal's number of the description. */
  readonly #owners = new Map<number, string>();
  /** How many terminals each client has, with its reservations. */
  readonly #counts = new Map<string, number>();

  constructor(parts: TerminalsParts) {
    this.#parts = parts;
  }

  /**
   * Reserves a terminal that is about to be opened.
   * @returns to be disposed of once it counts itself
   * @throws {Problem} EDQUOT
   */
  reserve({ name, quotas }: Client): Reservation {
    requireQuota(quotas, 'terminals', (this.#counts.get(name) ?? 0) + 1);
    return this.#count(name);
  }

  #count(client: string): Reservation {
    this.#counts.set(client, (this.#counts.get(client) ?? 0) + 1);
    return new Reservation(() => {
      const count = this.#counts.get(client)! - 1;
      if (count === 0) this.#counts.delete(client);
      else this.#counts.set(client, count);
    });
  }

  /**
   * Makes the terminal for a process that is about to start, whose `stdout` is captured. Call {@link Inputs.close} if it does not.
   * @returns the slave, which the caller closes once the process has its own
   * @throws {Problem} ENOSPC, EOPNOTSUPP; {SystemError} EMFILE, ENFILE, ENOMEM
   */
  open(id: number, client: string, size: WindowSize): Descriptor {
    const { inputs, descriptors } = this.#parts;
    const { master, slave } = opened(size);
    try {
      this.#connect(id, inputs.hold({ id, client, kind: 'tty' }, keepBelow(master, descriptors)));
      return slave;
    } catch (error) {
      inputs.close(id);
      master.close();
      slave.close();
      throw error;
    }
  }

  /** Returns the client of each terminal, for the next image. */
  handOver(): { description: number; client: string }[] {
    return [...this.#owners].map(([description, client]) => ({ description, client }));
  }

  #connect(id: number, input: Input): void {
    const stream = this.#parts.outputs.streamOf(id, 'stdout')!;
    const { descriptors, epoll } = this.#parts;
    new Terminal(input, stream, keepBelow(stream.openWriter(), descriptors), epoll);
  }

  /** Counts the terminal of a process that runs now, until it is closed. */
  track(id: number, client: string): void {
    const input = this.#parts.inputs.of({ id });
    if (input === undefined) return; // the process has ended already
    const counted = this.#count(client);
    this.#owners.set(id, client);
    input.onClosed(() => {
      this.#owners.delete(id);
      counted[Symbol.dispose]();
    });
  }

  /**
   * Goes on with terminals that an earlier daemon has left. One whose captured output is lost is closed.
   * @param owners the client of each description
   */
  resume(owners: ReadonlyMap<number, string>): void {
    for (const [id, input] of this.#parts.inputs.all())
      if (input.kind === 'tty') {
        if (this.#parts.outputs.streamOf(id, 'stdout') === undefined) input.close();
        else {
          this.#connect(id, input);
          this.track(id, owners.get(id)!);
        }
      }
  }
}

/** @throws {Problem} as {@link Terminals.open} */
function opened(size: WindowSize): ReturnType<typeof openTerminal> {
  const syscall = 'posix_spawn';
  try {
    return openTerminal(size);
  } catch (error) {
    if (isErrno(error, 'EMFILE', 'ENFILE', 'ENOMEM')) throw error;
    if (isErrno(error, 'ENOSPC')) {
      const detail = 'The machine has no terminal left: end programs that have one, or raise kernel.pty.max.';
      throw new Problem('ENOSPC', detail, { syscall, retry: { afterMs: 1000 } });
    }
    const detail = 'The daemon can open no terminal: mount devpts, and let it read and write /dev/ptmx.';
    throw new Problem('EOPNOTSUPP', detail, { syscall });
  }
}
