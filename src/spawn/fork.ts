import { constants } from 'node:os';
import type { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno, SystemError } from '../kernel/errno.ts';
import { receive, sendWith } from '../kernel/socket-pair.ts';
import { REPORT_SIZE } from '../kernel/syscall-interpreter.ts';
import type { SyscallProgram } from '../kernel/syscall-program.ts';

/** The message that releases a child. */
const GO = Buffer.from([1]);

/** A report of a child: that it exists (its pid, positive), or that a call failed (its errno, negated). */
export interface Report {
  result: number;
  /** Of the call in the child's table; negative for the clone itself. */
  position: number;
}

/** A child that does not execute its program yet. */
export class Fork {
  readonly #reply: Descriptor;
  readonly #epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  readonly #program: SyscallProgram;
  readonly #started = Promise.withResolvers<number>();
  readonly #ended = Promise.withResolvers<Report[]>();
  readonly #reports: Report[] = [];
  readonly #registration: Registration;
  #closed = false;
  #abandoned = false;
  #pid: number | null = null;

  constructor(reply: Descriptor, program: SyscallProgram, epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>) {
    this.#reply = reply;
    this.#program = program;
    this.#epoll = epoll;
    this.#registration = epoll.add(reply, new Wakeup(() => this.#read()));
  }

  /**
   * Resolves to its pid. The child is a zombie at worst until it is reaped, so the pid stays its own.
   * @throws {SystemError} `clone`: EAGAIN, ENOMEM
   */
  get pid(): Promise<number> {
    return this.#started.promise;
  }

  /** Lets it execute its program. Until then it makes the calls that precede the exec, and exits if this end of the socket closes. */
  release(): void {
    if (this.#closed) return; // it has failed already
    try {
      sendWith(this.#reply, GO, []);
    } catch (error) {
      if (!isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
    }
  }

  /** Resolves to its reports once it executes its program (then there are none) or has exited. */
  get reports(): Promise<Report[]> {
    return this.#ended.promise;
  }

  /** Whether it was closed before it executed its program. */
  get isAbandoned(): boolean {
    return this.#abandoned;
  }

  /** Whether the server ended before it made the child. */
  get isLost(): boolean {
    return this.#closed && !this.#abandoned && this.#pid === null && this.#reports.length === 0;
  }

  /** Closes its socket: the child exits, unless it has been released. */
  close(): void {
    if (this.#closed) return;
    this.#abandoned = true;
    this.#end();
  }

  #end(): void {
    this.#closed = true;
    this.#epoll.remove(this.#registration);
    this.#reply.close();
    if (this.#pid === null) {
      this.#started.reject(new SystemError('clone', constants.errno.EAGAIN));
      this.#started.promise.catch(() => {});
    }
    this.#ended.resolve(this.#reports);
  }

  #read(): void {
    for (;;) {
      const message = receive(this.#reply, REPORT_SIZE);
      if (message === null) return;
      if (message.length < REPORT_SIZE) break; // end of file: the child has closed its end
      const report = this.#program.reportIn(message);
      if (report.result > 0) {
        this.#pid = report.result;
        this.#started.resolve(report.result);
      } else {
        this.#reports.push(report);
        if (report.position < 0) this.#started.reject(new SystemError('clone', -report.result));
      }
    }
    this.#end();
  }
}
