import { constants as osConstants } from 'node:os';
import { isatty } from 'node:tty';
import type { Descriptor } from '../kernel/descriptor.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { ownDescription } from '../kernel/own-description.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { givePipe } from '../kernel/pipe.ts';
import { giveTerminal } from '../kernel/terminal.ts';
import { type Identity, identityOf, limitsOf } from './exec-context.ts';
import type { Fork } from './fork.ts';
import type { ForkServer, Stdio } from './fork-server.ts';
import { explain, problemOf, tooSlow } from './launch-problems.ts';
import { type LaunchPlan, LaunchProgram, type OutputFile } from './launch-program.ts';
import {
  candidates,
  environmentOf,
  type LaunchRequest,
  type OutputTarget,
  requireArguments,
  textOf,
} from './launch-request.ts';

/** The descriptors and paths that a launch needs from its caller. */
export interface LaunchFiles {
  /** Returns the write end of the pipe that captures a stream of the new process. It stays open here. */
  output(stream: 'stdout' | 'stderr'): Descriptor;
  /** Returns the read end of the pipe that is the standard input of the new process. It stays open here. */
  input(): Descriptor;
  /** Returns the slave of the terminal of the new process. It stays open here. */
  terminal(): Descriptor;
  /** A descriptor of /dev/null. */
  nothing: number;
  /** Returns the path of `cgroup.procs` of the cgroup that was made for the process. */
  cgroupProcs(): string;
}

/**
 * How long an exec may take, in milliseconds. A lease on the file of the program delays it for 45 s (fs.lease-break-time), a file
 * system for ever.
 */
const LONGEST_MS = 60_000;

/** A process that is about to execute its program. */
export interface Launched {
  pid: number;
  pidfd: Pidfd;
  /**
   * Lets it execute the program. Call {@link undo} if this fails.
   * @returns once the program runs
   * @throws {Problem} of {@link launch}
   */
  begin(): Promise<void>;
  /** Kills it and closes its pidfd. The reaper reaps it. */
  undo(): void;
}

export interface LaunchOptions {
  forkServer: ForkServer;
  nonblocking: boolean;
  /** The process's pidfd gets a lower number than this. */
  descriptors: number;
}

/**
 * Makes the process of a program. It waits until it may {@link Launched.begin}.
 * @throws {Problem} as the contract has it for a spawn: 422 for the program or the working directory, 403 for a program that may
 *   not be executed, 413, 503; EPERM and 422 for the user to run as; EOPNOTSUPP
 */
export async function launch(
  request: LaunchRequest,
  files: LaunchFiles,
  { forkServer, nonblocking, descriptors }: LaunchOptions,
): Promise<Launched> {
  using opened = new DisposableStack();
  const keep = <D extends Descriptor>(descriptor: D): D => opened.use(descriptor);
  try {
    const identity = identityOf(request);
    const program = new LaunchProgram(planOf(request, files, identity));
    const parts = { files, identity, keep };
    const stdio = request.tty === undefined ? streams(request, parts) : terminal(parts);
    const { pid, fork } = await forkServer.fork(program, stdio, descriptors);
    const pidfd = openOrEnd(pid, nonblocking, fork);
    const begin = (): Promise<void> => becomeProgram(program, fork);
    const undo = (): void => {
      fork.close();
      pidfd.signal(osConstants.signals.SIGKILL);
      pidfd.close();
    };
    return { pid, pidfd, begin, undo };
  } catch (error) {
    throw explain(error);
  }
}

/**
 * Starts a program that the daemon needs for itself.
 * @returns its pid, which has not been reaped
 * @throws {Problem} of {@link launch}
 */
export async function launchOwn(forkServer: ForkServer, request: LaunchRequest, stdio: Stdio): Promise<number> {
  const program = new LaunchProgram(planOf(request, null, null));
  try {
    const { pid, fork } = await forkServer.fork(program, stdio);
    try {
      await becomeProgram(program, fork);
      return pid;
    } catch (error) {
      process.kill(pid, 'SIGKILL');
      throw error;
    }
  } catch (error) {
    throw explain(error);
  }
}

/** @throws {Problem} */
async function becomeProgram(program: LaunchProgram, fork: Fork): Promise<void> {
  const late = setTimeout(() => fork.close(), LONGEST_MS);
  try {
    fork.release();
    const reports = await fork.reports;
    const failed = program.failureIn(reports);
    if (failed !== null) throw problemOf(failed);
  } finally {
    clearTimeout(late);
  }
  if (fork.isAbandoned) throw tooSlow();
}

function planOf(request: LaunchRequest, files: LaunchFiles | null, identity: Identity | null): LaunchPlan {
  const env = environmentOf(request, identity?.home);
  const argv = request.argv.map(textOf);
  requireArguments(argv, env);
  const { stdout, stderr } = request;
  return {
    programs: request.program === undefined ? candidates(request.argv[0], env.PATH) : [request.program],
    argv,
    env,
    cwd: request.cwd,
    cwdLiterally: request.cwdLiterally ?? false,
    stdout: fileOf(stdout),
    stderr: stderr === 'stdout' ? 'stdout' : fileOf(stderr),
    session: sessionOf(request),
    cgroup: request.cgroup === undefined || files === null ? null : files.cgroupProcs(),
    limits: limitsOf(request),
    nice: request.nice,
    umask: request.umask,
    identity,
    noNewPrivileges: request.noNewPrivileges ?? false,
  };
}

function sessionOf({ stdin, tty }: LaunchRequest): LaunchPlan['session'] {
  if (stdin === 'inherit') return isatty(0) ? 'foreground' : 'background';
  return tty === undefined ? 'own' : 'terminal';
}

const fileOf = (target: OutputTarget): OutputFile | null =>
  typeof target === 'string'
    ? null
    : { path: target.file, append: target.append ?? false, literally: target.literally ?? false };

type Keep = <D extends Descriptor>(descriptor: D) => D;

/** Opens the pidfd of a new child. A child without one could not be waited for, so it is killed. */
function openOrEnd(pid: number, nonblocking: boolean, fork: Fork): Pidfd {
  try {
    return Pidfd.open(pid, nonblocking);
  } catch (error) {
    fork.close();
    process.kill(pid, 'SIGKILL'); // it has not been reaped, so the pid is its own
    throw error;
  }
}

function terminal({ files, identity }: StreamParts): Stdio {
  const slave = files.terminal();
  if (identity !== null) giveTerminal(slave, identity.uid);
  return [slave.fd, slave.fd, slave.fd];
}

function streams(request: LaunchRequest, parts: StreamParts): Stdio {
  const stdin = source(request.stdin, parts);
  const stdout = target(request.stdout, 'stdout', parts);
  return [stdin, stdout, request.stderr === 'stdout' ? stdout : target(request.stderr, 'stderr', parts)];
}

function source(from: LaunchRequest['stdin'], { files, identity, keep }: StreamParts): number {
  if (from === 'inherit') return inherited(0, keep);
  if (from === 'null') return files.nothing;
  if (from === 'pipe') {
    const end = files.input();
    if (identity !== null) givePipe(end, identity.uid);
    return end.fd;
  }
  // A file in memory, not a pipe: it needs no writer, never blocks, and is on no disk. The child gets a description of its own,
  // read-only and at the beginning.
  using data = MemoryFile.create('stdin');
  data.write('text' in from ? from.text : Buffer.from(from.base64, 'base64'));
  return keep(data.reopened()).fd;
}

interface StreamParts {
  files: LaunchFiles;
  identity: Identity | null;
  keep: Keep;
}

/** A file is opened by the child: if its file system blocks, only the child waits. */
function target(to: OutputTarget, stream: 'stdout' | 'stderr', { files, identity, keep }: StreamParts): number {
  if (to === 'inherit') return inherited(stream === 'stdout' ? 1 : 2, keep);
  if (to !== 'capture') return files.nothing;
  const end = files.output(stream);
  if (identity !== null) givePipe(end, identity.uid);
  return end.fd;
}

function inherited(fd: number, keep: Keep): number {
  const own = ownDescription(fd);
  return own === null ? fd : keep(own).fd;
}
