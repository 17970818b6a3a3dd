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

/** What tells the daemon itself something, and nothing to a program that it runs. */
const ours = /^(?:WAITD_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|LISTEN_(?:FDS|PID|FDNAMES|PIDFDID))$/;

/** As shells have them: found, but not to be executed; not found. */
const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;
const KILLED = 128;

/** The main program could not be started: said in one line, with the exit code that a shell would give. */
export class NotStarted extends Error {
  readonly exitCode: number;

  constructor(program: string, { errno, message }: Problem) {
    super(`${program} cannot be started: ${message}`);
    this.exitCode = ['ENOENT', 'ENOTDIR'].includes(errno) ? NOT_FOUND : NOT_EXECUTABLE;
  }
}

type Command = readonly [program: string, ...args: string[]];

function requestFor([program, ...args]: Command) {
  const env = Object.entries(process.env).filter(([name]) => !ours.test(name)) as [string, string][];
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
 * Finds out whether there is such a program, without starting it.
 * @throws {NotStarted}
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

/** @returns the errno with which the kernel would refuse it; `null` where it may be executed */
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
 * The one program that a container is there for, run under the daemon as under an init. It has the daemon's environment, directory,
 * streams and terminal, and is otherwise a handle as any: of the client that the daemon's own user is.
 */
export class MainProgram {
  readonly #parking: Daemon['parking'];
  readonly #handle: Handle;

  private constructor({ parking }: Daemon, handle: Handle) {
    this.#parking = parking;
    this.#handle = handle;
  }

  /** @throws {NotStarted} */
  static async start(daemon: Daemon, command: Command): Promise<MainProgram> {
    try {
      const more = { nonblocking: false, labels: { main: 'true' } };
      return new MainProgram(daemon, await daemon.handles.spawn(self(), requestFor(command), more));
    } catch (error) {
      throw error instanceof Problem ? new NotStarted(command[0], error) : error;
    }
  }

  /**
   * The one of the image before this one.
   * @throws {Problem} ESTALE where a client has closed it
   */
  static resume(daemon: Daemon, id: string): MainProgram {
    return new MainProgram(daemon, daemon.handles.get(self(), id));
  }

  get id(): string {
    return this.#handle.id;
  }

  signal(signal: string): void {
    try {
      if (this.#handle.process.ending === null) this.#handle.description.pidfd?.signal(signalNumber(signal)!);
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'EPERM')) throw error;
    }
  }

  /**
   * @returns once it has ended and that is told: its exit code, or 128 and the signal that killed it
   * @throws {Problem} ESHUTDOWN where the daemon is replaced before
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
