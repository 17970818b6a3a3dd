import { constants } from 'node:os';
import type { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno, SystemError } from '../kernel/errno.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { limitReceive, makeSocketPair, receive, sendWith } from '../kernel/socket-pair.ts';
import { PROGRAM_FD, startProgram } from '../kernel/spawn.ts';
import { Label, REPORT, REPORT_SIZE, SyscallProgram, WordOf } from '../kernel/syscall-program.ts';
import { P_PID, WEXITED, waitid } from '../kernel/waitid.ts';
import { Semaphore } from './semaphore.ts';

/** Where the table of a child lies in its memory. */
export const CHILD_ORIGIN = 0x1000_0000;

/** What a child has besides 0, 1 and 2: its table, and the socket on which it reports. Both are closed by an exec. */
export const TABLE_FD = 4;
export const REPLY_FD = 5;

/** How many requests may lie in the server's socket. Each takes it 0.1 ms, so more would not be faster. */
const MOST_QUEUED = 32;

const CLONE_PARENT = 0x8000;
const SIGCHLD = constants.signals.SIGCHLD;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_FIXED = 0x12;
const PR_SET_NAME = 15;

/** What a child said of a call that failed, or that it is there: positive, its pid. */
export interface Report {
  result: number;
  /** Of the call in its table. */
  position: number;
}

/** A child on its way to its program. */
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
   * Its pid, as soon as it is known. It is a zombie at worst until somebody reaps it.
   * @throws {SystemError} `clone`: EAGAIN, ENOMEM
   */
  get pid(): Promise<number> {
    return this.#started.promise;
  }

  /** Lets it execute its program. Until then it does what comes before, and ends when this end of the socket is closed. */
  release(): void {
    if (this.#closed) return; // it has failed already
    try {
      sendWith(this.#reply, GO, []);
    } catch (error) {
      if (!isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
    }
  }

  /** What it reported, once it has become its program (then nothing), or has ended. */
  get reports(): Promise<Report[]> {
    return this.#ended.promise;
  }

  /** Whether it was given up before it was its program. */
  get isAbandoned(): boolean {
    return this.#abandoned;
  }

  /** Whether the server ended before it made the child. */
  get isLost(): boolean {
    return this.#closed && !this.#abandoned && this.#pid === null && this.#reports.length === 0;
  }

  /** Gives it up: it ends, unless it has been released. */
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
      if (message.length < REPORT_SIZE) break; // the end: nobody holds the other end any more
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

/** Descriptors for stdin, stdout and stderr. */
export type Stdio = readonly [stdin: number, stdout: number, stderr: number];

interface Server {
  pid: number;
  channel: Descriptor;
}

/** A server that nobody has needed for so long ends, so that an idle daemon has no process and no descriptor for it. */
const LONGEST_IDLE_MS = 500;

/** A fork takes a tenth of a millisecond. */
const LONGEST_FORK_MS = 5000;

/** A server may end while a request is on its way to it. */
const MOST_TRIES = 3;

const GO = Buffer.from([1]);

/**
 * The process that forks for the daemon, so that neither its event loop nor a thread waits for an exec, however long one takes.
 *
 * It is a few pages of memory, so that a fork costs little, and its children are the daemon's own: CLONE_PARENT makes them children of
 * the thread that started the server (clone(2)). Each child maps the table of system calls that it was sent, and makes those calls,
 * the last of which is execve(2).
 */
export class ForkServer {
  readonly #epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  readonly #onStart: (pid: number) => Promise<unknown>;
  readonly #semaphore = new Semaphore(MOST_QUEUED);
  readonly #underWay = new Set<Fork>();
  #server: Server | null = null;

  /** @param onStart reaps a server, whose pid it is given; it resolves when that has ended */
  constructor(epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>, onStart: (pid: number) => Promise<unknown>) {
    this.#epoll = epoll;
    this.#onStart = onStart;
  }

  /**
   * Makes a child that runs a table of system calls.
   * @param program its origin is {@link CHILD_ORIGIN}
   * @param stdio what becomes its descriptors 0, 1 and 2
   * @param below its descriptor here has a lower number than this
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
      // Its pidfd is going to have the number of what is closed before that is opened.
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

  /** A server that has ended is followed by another. */
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

  /** Ends a server that does not answer, since somebody has stopped it. Whoever waits for it turns to the next one. */
  #kill(server: Server | null): void {
    if (server === null || server !== this.#server) return; // another one has taken its place
    process.kill(server.pid, 'SIGKILL'); // nobody has reaped it, or it would be forgotten
    this.#forget();
  }

  #forget(): void {
    this.#server?.channel.close();
    this.#server = null;
  }

  /** Gives up every child that is not its program yet. */
  abandon(): void {
    for (const fork of this.#underWay) fork.close();
  }

  /** Lets the server end now, and not after a while without work. */
  retire(): void {
    this.#forget();
  }

  /** Ends the server for good, once nobody else reaps it. */
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

/** Signals that the C library keeps for itself, and leaves ignored in what it spawns. */
const LIBRARY_SIGNALS = [32, 33];
const SIGSET_SIZE = 8; // the kernel's own
const NOTHING = 0;

function serverProgram(): SyscallProgram {
  const program = new SyscallProgram();
  const receiveNext = new Label();
  const refused = new Label();
  const letGo = new Label();
  const child = new Label();
  const map = new Label();
  const unmapped = new Label();
  const end = new Label();
  program.call('close', [PROGRAM_FD]);
  program.call('prctl', [PR_SET_NAME, program.text('waitd-fork')]);
  program.call('chdir', [program.text('/')]);
  const byDefault = program.bytes(Buffer.alloc(32)); // struct kernel_sigaction
  for (const signal of LIBRARY_SIGNALS) program.call('rt_sigaction', [signal, byDefault, NOTHING, SIGSET_SIZE]);

  program.place(receiveNext);
  // The size of the table goes right where mmap(2) wants it; the descriptors get the lowest free numbers, 1 to 5.
  const size = program.words([new WordOf(map, 2), 8]); // struct iovec
  const control = program.bytes(Buffer.alloc(40)); // struct cmsghdr with five descriptors
  const message = program.words([NOTHING, NOTHING, size, 1, control, 40, NOTHING]); // struct msghdr
  program.call('recvmsg', [0, message, MSG_CMSG_CLOEXEC], { zero: end, failed: end });
  program.call('clone', [CLONE_PARENT | SIGCHLD, NOTHING, NOTHING, NOTHING, NOTHING], {
    next: letGo,
    zero: child,
    failed: refused,
  });

  program.place(refused);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
  program.place(letGo);
  for (let fd = 1; fd < REPLY_FD; fd += 1) program.call('close', [fd]);
  program.call('close', [REPLY_FD], { next: receiveNext, failed: receiveNext });

  program.place(child);
  program.call('getpid', []);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE], { failed: end });
  for (let fd = 0; fd < 3; fd += 1) program.call('dup3', [fd + 1, fd, NOTHING], { failed: end });
  program.call('close', [3]);
  program.place(map);
  program.call('mmap', [CHILD_ORIGIN, NOTHING, PROT_READ_WRITE, MAP_PRIVATE_FIXED, TABLE_FD, NOTHING], {
    next: CHILD_ORIGIN,
    failed: unmapped,
  });
  program.place(unmapped);
  program.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
  program.place(end);
  program.call('exit_group', [127]);
  return program;
}
