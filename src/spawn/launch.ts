import { homedir, constants as osConstants } from 'node:os';
import { isatty } from 'node:tty';
import type { Spawn } from '../../schemas/handles.ts';
import { notAllowed } from '../clients/client.ts';
import { isProblemErrno, Problem } from '../errors/problem.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { errnoName, SystemError } from '../kernel/errno.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { ownDescription } from '../kernel/own-description.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { givePipe } from '../kernel/pipe.ts';
import { type Identity, identityOf, limitsOf } from './exec-context.ts';
import type { Fork, ForkServer, Stdio } from './fork-server.ts';
import { type Failed, type LaunchPlan, LaunchProgram, type OutputFile } from './launch-program.ts';

/** One that is secret goes to the program, and is shown to nobody. */
export type Argument = Spawn['argv'][number];

/** `literally`: no part of the path may be a symbolic link. */
type Literally = { literally?: boolean };
export type OutputTarget = Exclude<Spawn['stdout'], object> | (Extract<Spawn['stdout'], object> & Literally);

/** What stands for a secret wherever a command line is shown or kept. */
export const HIDDEN = '***';

const textOf = (argument: Argument): string => (typeof argument === 'string' ? argument : argument.secret);
export const shownOf = (argument: Argument): string => (typeof argument === 'string' ? argument : HIDDEN);

/** A program to start, as a client asks for it. */
export interface LaunchRequest extends Omit<Spawn, 'stdin' | 'stdout' | 'stderr'> {
  /** Where it is, if that is known; else it is looked for. */
  program?: string;
  /** Whether `env` is all of it. */
  wholeEnvironment?: boolean;
  /** Whether a symbolic link in `cwd` is refused. */
  cwdLiterally?: boolean;
  /** `inherit` is for the daemon's own main program alone. */
  stdin: Spawn['stdin'] | 'inherit';
  stdout: OutputTarget;
  stderr: OutputTarget | 'stdout';
}

/** Where captured output and stdin data go. */
export interface LaunchFiles {
  /** The write end of the pipe that a stream of the new handle is captured by. It stays open here. */
  output(stream: 'stdout' | 'stderr'): Descriptor;
  /** A descriptor of /dev/null. */
  nothing: number;
  /** The path of `cgroup.procs` of the cgroup that was made for it. */
  cgroupProcs(): string;
}

/** A user of a container often has no entry in the password database. */
function ownHome(): string {
  try {
    return homedir();
  } catch {
    return '/';
  }
}

/** What every process gets, unless the request says otherwise. The daemon's own environment may hold secrets. */
const basicEnvironment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: ownHome(),
  LANG: 'C.UTF-8',
};

/** What the process gets of an environment. */
export function environmentOf(
  { env, wholeEnvironment = false }: LaunchRequest,
  home: string = basicEnvironment.HOME,
): Record<string, string> & { PATH: string } {
  if (wholeEnvironment) return { ...env, PATH: env.PATH ?? basicEnvironment.PATH };
  return { ...basicEnvironment, HOME: home, ...env };
}

/** How long a program may take to be there. A lease on its file holds exec up for 45 s (fs.lease-break-time), a file system for ever. */
const LONGEST_MS = 60_000;

/** More than any PATH has. */
const MOST_DIRECTORIES = 1024;

/** A process that is about to be its program. */
export interface Launched {
  pid: number;
  pidfd: Pidfd;
  /**
   * Lets it execute the program.
   * @returns once it is that
   * @throws {Problem} of {@link launch}, and the process is gone
   */
  begin(): Promise<void>;
  /** Ends it. The reaper reaps it. */
  undo(): void;
}

/**
 * Makes the process of a program, which then waits until it may {@link Launched.begin}.
 * @param descriptors the process's pidfd gets a lower number than this
 * @throws {Problem} what the contract says of a spawn: 422 for the program or the working directory, 403 for one that may
 *   not be executed, 413, 503; EPERM and 422 of whom it is to run as; EOPNOTSUPP
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
    const stdin = source(request.stdin, files, keep);
    const parts = { files, identity, keep };
    const stdout = target(request.stdout, 'stdout', parts);
    const stderr = request.stderr === 'stdout' ? stdout : target(request.stderr, 'stderr', parts);
    const { pid, fork } = await forkServer.fork(program, [stdin, stdout, stderr], descriptors);
    const pidfd = openOrEnd(pid, nonblocking, fork);
    const undo = (): void => {
      fork.close();
      pidfd.signal(osConstants.signals.SIGKILL);
      pidfd.close();
    };
    const begin = async (): Promise<void> => {
      try {
        await becomeProgram(program, fork);
      } catch (error) {
        undo();
        throw error;
      }
    };
    return { pid, pidfd, begin, undo };
  } catch (error) {
    throw explain(error);
  }
}

export interface LaunchOptions {
  forkServer: ForkServer;
  nonblocking: boolean;
  descriptors: number;
}

/**
 * Starts a program that the daemon needs for itself.
 * @returns its pid, which nobody has reaped
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
  if (fork.isAbandoned)
    throw new Problem('EAGAIN', `The program could not be executed in time: try again.`, {
      syscall: 'posix_spawn',
      status: 503,
      retry: { afterMs: 1000 },
    });
}

/** The most that execve(2) takes, whatever the limit of the stack is: 3/4 of 8 MiB, with eight bytes for each pointer (fs/exec.c). */
const MOST_ARGUMENT_BYTES = 6 * 2 ** 20;

/**
 * Refuses what the kernel is certain to refuse, before a table is made of it.
 * @throws {Problem} E2BIG
 */
function requireArguments(argv: readonly string[], env: Readonly<Record<string, string>>): void {
  let bytes = 0;
  // A character is a byte at least.
  for (const argument of argv) bytes += argument.length + 9;
  for (const name in env) bytes += name.length + env[name]!.length + 10;
  if (bytes > MOST_ARGUMENT_BYTES) throw explained('E2BIG', 'The program');
}

function planOf(request: LaunchRequest, files: LaunchFiles | null, identity: Identity | null): LaunchPlan {
  const env = environmentOf(request, identity?.home);
  const argv = request.argv.map(textOf);
  requireArguments(argv, env);
  const { stdin, stdout, stderr } = request;
  return {
    programs: request.program === undefined ? candidates(request.argv[0], env.PATH) : [request.program],
    argv,
    env,
    cwd: request.cwd,
    cwdLiterally: request.cwdLiterally ?? false,
    stdout: fileOf(stdout),
    stderr: stderr === 'stdout' ? 'stdout' : fileOf(stderr),
    session: stdin === 'inherit' ? (isatty(0) ? 'foreground' : 'background') : 'own',
    cgroup: request.cgroup === undefined || files === null ? null : files.cgroupProcs(),
    limits: limitsOf(request),
    nice: request.nice,
    umask: request.umask,
    identity,
    noNewPrivileges: request.noNewPrivileges ?? false,
  };
}

const fileOf = (target: OutputTarget): OutputFile | null =>
  typeof target === 'string'
    ? null
    : { path: target.file, append: target.append ?? false, literally: target.literally ?? false };

/**
 * Where execvp(3) would look for a program, in the PATH that the process gets.
 * @throws {Problem} ENOENT, EINVAL
 */
export function candidates(program: string, path: string): string[] {
  if (program.includes('/')) return [program];
  if (program === '') throw explained('ENOENT', 'The program');
  const directories = path.split(':', MOST_DIRECTORIES + 1);
  if (directories.length > MOST_DIRECTORIES)
    throw new Problem('EINVAL', `PATH has more than ${MOST_DIRECTORIES} directories: name the program by its path.`, {
      errors: [{ path: '/spawn/env/PATH', message: `must have at most ${MOST_DIRECTORIES} directories` }],
    });
  return directories.map((directory) => `${directory === '' ? '.' : directory}/${program}`);
}

type Keep = <D extends Descriptor>(descriptor: D) => D;

/** A child that we cannot hold is one that nobody could wait for: it is ended again. */
function openOrEnd(pid: number, nonblocking: boolean, fork: Fork): Pidfd {
  try {
    return Pidfd.open(pid, nonblocking);
  } catch (error) {
    fork.close();
    process.kill(pid, 'SIGKILL'); // nobody has reaped it, so the pid is its own
    throw error;
  }
}

function source(from: LaunchRequest['stdin'], files: LaunchFiles, keep: Keep): number {
  if (from === 'inherit') return inherited(0, keep);
  if (from === 'null') return files.nothing;
  // A file in memory, not a pipe: nobody has to feed it, it never blocks, and it is on no disk. The child gets a description
  // of its own, read-only and at the beginning.
  using data = MemoryFile.create('stdin');
  data.write('text' in from ? from.text : Buffer.from(from.base64, 'base64'));
  return keep(data.reopened()).fd;
}

interface TargetParts {
  files: LaunchFiles;
  identity: Identity | null;
  keep: Keep;
}

/** A file is opened by the child, which alone has to wait where its file system makes it wait. */
function target(to: OutputTarget, stream: 'stdout' | 'stderr', { files, identity, keep }: TargetParts): number {
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

const SYSCALL = 'posix_spawn';

const sentences: Record<string, string> = {
  ENOENT: 'does not exist',
  ENOTDIR: 'is below something that is no directory',
  ENOEXEC: 'is in no format that this kernel executes; a script needs a first line such as #!/bin/sh',
  EACCES: 'may not be used: look at its permissions, and at those of its directories',
  E2BIG: 'was given more arguments and environment than the kernel takes',
  ENXIO: 'is a FIFO that nobody reads, or a device that is not there',
};

const resources = new Set(['EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC']);

/** Turns what a system call said into what the client is told. */
export function explain(error: unknown): unknown {
  if (error instanceof Problem) return error;
  const errno =
    error instanceof SystemError ? error.errno : error instanceof Error && 'code' in error ? String(error.code) : '';
  return resources.has(errno) ? explained(errno, 'The program') : error;
}

/** What a client is told of a step that failed in the child. */
function problemOf({ step, errno: number }: Failed): Problem {
  const errno = errnoName(number);
  switch (step.of) {
    case 'limit':
      if (errno === 'EINVAL')
        return new Problem('EINVAL', `limits.${step.resource} is not possible: soft may not be above hard.`);
      return new Problem('EPERM', `The daemon lacks the privilege to raise limits.${step.resource}.`, {
        syscall: 'prlimit',
      });
    case 'nice':
      return new Problem('EPERM', 'The daemon lacks the privilege to lower nice.', { syscall: 'setpriority' });
    case 'user':
      if (resources.has(errno)) return explained(errno, 'The user');
      return new Problem('EPERM', 'The kernel does not let the daemon become this user.', { syscall: 'setuid' });
    case 'noNewPrivileges':
      return new Problem('EOPNOTSUPP', 'This kernel knows no noNewPrivileges: leave it out.', { syscall: 'prctl' });
    case 'cgroup':
      return resources.has(errno)
        ? explained(errno, 'The cgroup')
        : new Problem('EPERM', 'The daemon may not move the process into its cgroup.', { syscall: 'write' });
    case 'stdout':
    case 'stderr':
      return explained(errno, `The file for ${step.of}`);
    case 'directory':
      if (errno === 'ELOOP' && step.literally) return notAllowed('work in this directory');
      return explained(errno, 'The working directory');
    case 'search':
    case 'program':
    case 'child':
      return explained(errno, 'The program');
  }
}

export function explained(errno: string, subject: string): Problem {
  if (resources.has(errno) && isProblemErrno(errno))
    return new Problem(errno, 'The machine is out of a resource that a new process needs: try again later.', {
      syscall: SYSCALL,
      status: 503,
      retry: { afterMs: 1000 },
    });
  const detail = `${subject} ${sentences[errno] ?? `cannot be used (${errno})`}.`;
  if (errno === 'EACCES') return new Problem('EACCES', detail, { syscall: SYSCALL, status: 403 });
  if (errno === 'EPERM') return new Problem('EPERM', detail, { syscall: SYSCALL });
  // Whatever else a file system says of its file, it is the request that named it.
  return new Problem(isProblemErrno(errno) ? errno : 'ENOEXEC', detail, {
    syscall: SYSCALL,
    status: errno === 'E2BIG' ? 413 : 422,
  });
}
