import { accessSync, constants, statSync } from 'node:fs';
import { signalNumber } from '../../schemas/signal-names.ts';
import { Client } from '../clients/client.ts';
import { unlimited } from '../clients/rights.ts';
import type { Daemon } from '../daemon.ts';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Handle } from '../model/process.ts';
import { explained } from '../spawn/launch-problems.ts';
import { candidates, environmentOf } from '../spawn/launch-request.ts';

/** The variables for the daemon itself, which the main program must not inherit. */
const daemonVariables = /^(?:WAITD_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|LISTEN_(?:FDS|PID|FDNAMES|PIDFDID))$/;

/** The exit codes of a POSIX shell: the command is not executable, is not found, or was killed by a signal. */
const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;
const KILLED = 128;

/** The error of a main program that cannot be started, with the exit code that a shell would use. */
export class NotStarted extends Error {
  readonly exitCode: number;

  constructor(program: string, { errno, message }: Problem) {
    super(`${program} cannot be started: ${message}`);
    this.exitCode = ['ENOENT', 'ENOTDIR'].includes(errno) ? NOT_FOUND : NOT_EXECUTABLE;
  }
}

type Command = readonly [program: string, ...args: string[]];

function requestFor([program, ...args]: Command) {
  const env = Object.entries(process.env).filter(([name]) => !daemonVariables.test(name)) as [string, string][];
  return {
    argv: [program, ...args] as [string, ...string[]],
    env: Object.fromEntries(env),
    wholeEnvironment: true,
    cwd: process.cwd(),
    stdin: 'inherit',
    stdout: 'inherit',
    stderr: 'inherit',
  } as const;
}

/**
 * Checks that the main program exists and is executable, without starting it.
 * @throws {NotStarted} if it does not exist or is not executable
 */
export function requireProgram(command: Command): void {
  const [program] = command;
  const problem = problemWith(program, environmentOf(requestFor(command)).PATH);
  if (problem !== null) throw new NotStarted(program, problem);
}

function problemWith(program: string, path: string): Problem | null {
  let errno = 'ENOENT';
  try {
    for (const candidate of candidates(program, path)) {
      const found = accessTo(candidate);
      if (found === null) return null;
      if (found === 'EACCES' || program.includes('/')) errno = found;
    }
    return explained(errno, 'The program');
  } catch (error) {
    if (error instanceof Problem) return error;
    throw error;
  }
}

/** @returns the errno of execve(2) for the path, or `null` if it is executable */
function accessTo(path: string): string | null {
  try {
    if (!statSync(path).isFile()) return 'EACCES';
    accessSync(path, constants.X_OK);
    return null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'ENOENT';
  }
}

/**
 * The main program of a container, which runs under the daemon as under an init. It inherits the daemon's environment, working directory,
 * streams and terminal. Its handle is an ordinary one, and belongs to the client of the daemon's own user.
 */
export class MainProgram {
  readonly #parking: Daemon['parking'];
  readonly #handle: Handle;

  private constructor({ parking }: Daemon, handle: Handle) {
    this.#parking = parking;
    this.#handle = handle;
  }

  /** Starts the main program. @throws {NotStarted} if it cannot be started */
  static async start(daemon: Daemon, command: Command): Promise<MainProgram> {
    try {
      const more = { nonblocking: false, name: null, labels: { main: 'true' } };
      return new MainProgram(daemon, await daemon.handles.spawn(self(), requestFor(command), more));
    } catch (error) {
      throw error instanceof Problem ? new NotStarted(command[0], error) : error;
    }
  }

  /**
   * Takes over the main program that the previous image started.
   * @param id its handle
   * @throws {Problem} ESTALE if a client has closed the handle
   */
  static resume(daemon: Daemon, id: string): MainProgram {
    return new MainProgram(daemon, daemon.handles.get(self(), id));
  }

  get id(): string {
    return this.#handle.id;
  }

  /** Sends a signal to the program, unless it has ended. Ignores ESRCH and EPERM. */
  signal(signal: string): void {
    try {
      if (this.#handle.process.ending === null) this.#handle.description.pidfd?.signal(signalNumber(signal)!);
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'EPERM')) throw error;
    }
  }

  /**
   * Waits for the end of the program.
   * @returns its exit code, or 128 plus the number of the signal that killed it
   * @throws {Problem} ESHUTDOWN if the daemon is replaced before
   */
  async ended(): Promise<number> {
    const isOver = (): true | null => (this.#handle.process.ending === null ? null : true);
    const caller = { client: null, abortSignal: new AbortController().signal };
    if (isOver() === null) await this.#parking.park([this.#handle], isOver, { timeoutMs: undefined, caller });
    const { outcome } = this.#handle.process.ending!;
    switch (outcome?.reason) {
      case 'exited':
        return outcome.exitCode;
      case 'killed':
      case 'dumped':
        return KILLED + signalNumber(outcome.signal)!;
      default:
        return 1;
    }
  }
}

function self(): Client {
  return new Client(`uid:${process.getuid!()}`, unlimited, {});
}
