import { constants } from 'node:os';
import type { Descriptor } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { isErrno, SystemError } from '../kernel/errno.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { limitReceive, makeSocketPair, sendWith } from '../kernel/socket-pair.ts';
import { startProgram } from '../kernel/spawn.ts';
import type { SyscallProgram } from '../kernel/syscall-program.ts';
import { P_PID, WEXITED, waitid } from '../kernel/waitid.ts';
import { Semaphore } from '../model/semaphore.ts';
import { Fork } from './fork.ts';
import { serverProgram } from './fork-server-program.ts';

/** How many requests may be queued in the server's socket. Each takes it 0.1 ms, so more would not be faster. */
const MOST_QUEUED = 32;

/** Descriptors for stdin, stdout and stderr. */
export type Stdio = readonly [stdin: number, stdout: number, stderr: number];

interface Server {
  pid: number;
  channel: Descriptor;
}

/** A server that is idle for this long ends, so that an idle daemon has no process and no descriptor for it. */
const LONGEST_IDLE_MS = 500;

/** A server that has not forked after this long is killed. A fork takes a tenth of a millisecond. */
const LONGEST_FORK_MS = 5000;

/** A server may end while a request is on its way to it. */
const MOST_TRIES = 3;

/**
 * The process that forks for the daemon, so that neither its event loop nor a thread waits for an exec, however long one takes.
 *
 * It has a few pages of memory, so that a fork costs little. Its children are the daemon's own: CLONE_PARENT makes them children of
 * the thread that started the server (clone(2)). Each child maps the table of system calls that it was sent, and makes those calls.
 * The last one is execve(2).
 */
export class ForkServer {
  readonly #epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  readonly #onStart: (pid: number) => Promise<unknown>;
  readonly #semaphore = new Semaphore(MOST_QUEUED);
  readonly #underWay = new Set<Fork>();
  #server: Server | null = null;

  /** @param onStart reaps the server of this pid; resolves when it has ended */
  constructor(epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>, onStart: (pid: number) => Promise<unknown>) {
    this.#epoll = epoll;
    this.#onStart = onStart;
  }

  /**
   * Makes a child that runs a table of system calls.
   * @param program its origin is {@link CHILD_ORIGIN}
   * @param stdio what becomes its descriptors 0, 1 and 2
   * @param below its descriptor in the daemon gets a lower number than this
   * @returns once its pid is known
   * @throws {SystemError} EAGAIN, ENOMEM, EMFILE, ENFILE
   */
  async fork(
    program: SyscallProgram,
    stdio: Stdio,
    below = Number.POSITIVE_INFINITY,
  ): Promise<{ pid: number; fork: Fork }> {
    return this.#semaphore.run(async () => {
      for (let tries = 1; ; tries += 1) {
        const fork = this.#send(program, stdio, below);
        this.#underWay.add(fork);
        void fork.reports.then(() => this.#underWay.delete(fork));
        const server = this.#server;
        const late = setTimeout(() => this.#kill(server), LONGEST_FORK_MS);
        try {
          return { pid: await fork.pid, fork };
        } catch (error) {
          fork.close();
          if (!fork.isLost || tries === MOST_TRIES) throw error;
        } finally {
          clearTimeout(late);
        }
      }
    });
  }

  #send(program: SyscallProgram, [stdin, stdout, stderr]: Stdio, below: number): Fork {
    using table = MemoryFile.create('waitd-table');
    const image = program.image();
    table.write(image);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(image.length));
    const { ours, theirs } = makeSocketPair();
    try {
      // The child's pidfd gets a number that is freed before it is opened.
      if (ours.fd >= below) throw new SystemError('socketpair', constants.errno.EMFILE);
      const request = [stdin, stdout, stderr, table.fd, theirs.fd];
      if (!this.#request(size, request)) throw new SystemError('sendmsg', constants.errno.EAGAIN);
    } catch (error) {
      ours.close();
      throw error;
    } finally {
      theirs.close();
    }
    return new Fork(ours, program, this.#epoll);
  }

  /** Sends a request, to a new server if the last one has ended. @returns whether the socket took it */
  #request(body: Buffer, descriptors: readonly number[]): boolean {
    try {
      return sendWith(this.#running().channel, body, descriptors);
    } catch (error) {
      if (!isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
      this.#forget();
      return sendWith(this.#running().channel, body, descriptors);
    }
  }

  #running(): Server {
    if (this.#server !== null) return this.#server;
    const { ours, theirs } = makeSocketPair();
    try {
      limitReceive(theirs, LONGEST_IDLE_MS);
      const pid = startProgram(serverProgram(), 'waitd-fork', theirs);
      const server = { pid, channel: ours };
      this.#server = server;
      void this.#onStart(pid).then(() => {
        if (this.#server === server) this.#forget();
      });
      return server;
    } catch (error) {
      this.#server = null;
      ours.close();
      throw error;
    } finally {
      theirs.close();
    }
  }

  /** Kills a server that does not answer because it was stopped. The forks that wait for it are sent to the next one. */
  #kill(server: Server | null): void {
    if (server === null || server !== this.#server) return; // it has been replaced already
    process.kill(server.pid, 'SIGKILL'); // it has not been reaped, or it would be forgotten
    this.#forget();
  }

  #forget(): void {
    this.#server?.channel.close();
    this.#server = null;
  }

  /** Closes every child that does not execute its program yet. */
  abandon(): void {
    for (const fork of this.#underWay) fork.close();
  }

  /** Ends the server now instead of after its idle time. */
  retire(): void {
    this.#forget();
  }

  /** Kills and reaps the server. Call it when the reaper has stopped. */
  close(): void {
    this.abandon();
    if (this.#server === null) return;
    const { pid, channel } = this.#server;
    this.#server = null;
    channel.close();
    try {
      process.kill(pid, 'SIGKILL');
      waitid(P_PID, pid, WEXITED); // at once: it holds nothing that could take long
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'ECHILD')) throw error;
    }
  }
}
