import { constants, openSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { homedir, constants as osConstants } from 'node:os';
import { join, resolve } from 'node:path';
import { isatty } from 'node:tty';
import { isProblemErrno, Problem } from '../errors/problem.ts';
import { Descriptor } from '../kernel/descriptor.ts';
import { SystemError } from '../kernel/errno.ts';
import { openLiterally } from '../kernel/file.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { makePipe } from '../kernel/pipe.ts';
import { lookUp, type SpawnRequest, spawn } from '../kernel/spawn.ts';
import { P_PID, WEXITED, waitid } from '../kernel/waitid.ts';
import { become, bound, chainFor, requireFormat, scriptOf, undo } from './exec-chain.ts';
import { type GuiseRequest, identityOf, isPlain } from './guise.ts';

/** `inherit` is for the daemon's own main program alone. */
export type StdinSource = 'null' | 'inherit' | { text: string } | { base64: string };
export type OutputTarget =
  | 'null'
  | 'inherit'
  | 'capture'
  /** `literally`: no part of the path may be a symbolic link. */
  | { file: string; append?: boolean | undefined; literally?: boolean };

/** One that is secret goes to the program, and is shown to nobody. */
export type Argument = string | { secret: string };

/** What stands for a secret wherever a command line is shown or kept. */
export const HIDDEN = '***';

const textOf = (argument: Argument): string => (typeof argument === 'string' ? argument : argument.secret);
export const shownOf = (argument: Argument): string => (typeof argument === 'string' ? argument : HIDDEN);

/** A program to start, as a client asks for it. */
export interface LaunchRequest extends GuiseRequest {
  argv: [string, ...Argument[]];
  /** Where it is, if that is known; else it is looked for. */
  program?: string;
  env: Readonly<Record<string, string>>;
  /** Whether that is all of it. */
  wholeEnvironment?: boolean;
  cwd: string;
  stdin: StdinSource;
  stdout: OutputTarget;
  stderr: OutputTarget | 'stdout';
}

/** Where captured output and stdin data go. */
export interface LaunchFiles {
  /** The path that a captured stream of the new handle is written to. */
  output(stream: 'stdout' | 'stderr'): string;
  /** A private directory. */
  scratch: string;
  /** A descriptor of /dev/null. */
  nothing: number;
  /** Moves a process into the cgroup that was made for it. */
  enterCgroup(pid: number): void;
}

/** What every process gets, unless the request says otherwise. The daemon's own environment may hold secrets. */
const basicEnvironment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: homedir(),
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

/** A process that was started. */
export interface Launched {
  pid: number;
  pidfd: Pidfd;
  /** Where it is on its way to the program: when it is there, or that it came to nothing. `null` where it is there already. */
  begun: Promise<void> | null;
}

/**
 * Starts a program and opens a pidfd on it. Race-free, as nobody but the daemon reaps its children.
 * @param descriptors the process's pidfd gets a lower number than this
 * @throws {Problem} what the contract says of a spawn: 422 for the program or the working directory, 403 for one that may
 *   not be executed, 413, 503; EPERM and 422 of whom it is to run as; EOPNOTSUPP
 */
export async function launch(
  request: LaunchRequest,
  files: LaunchFiles,
  nonblocking: boolean,
  descriptors: number,
): Promise<Launched> {
  using opened = new DisposableStack();
  const keep = (fd: number): Descriptor => opened.use(new Descriptor(fd));
  try {
    requireDirectory(request.cwd);
    const stdin = source(request.stdin, files, keep);
    const stdout = target(request.stdout, 'stdout', files, keep);
    const stderr = request.stderr === 'stdout' ? ('stdout' as const) : target(request.stderr, 'stderr', files, keep);
    // Held until the process is there, so that a full descriptor table is noticed before anything is started.
    const reserve = keepBelow(keep(openSync('/dev/null', constants.O_RDONLY)), descriptors);
    const stdio = { stdin, stdout, stderr } as const;
    if (!isPlain(request)) return await launchAs(request, stdio, files, nonblocking, reserve);
    const env = environmentOf(request);
    const path = request.program ?? lookUp(request.argv[0], env.PATH);
    const job =
      request.stdin === 'inherit' ? { job: isatty(0) ? ('foreground' as const) : ('background' as const) } : {};
    const pid = await spawn({ path, argv: request.argv.map(textOf), env, cwd: request.cwd, ...stdio, ...job });
    reserve.close();
    return { pid, pidfd: openOrEnd(pid, nonblocking), begun: null };
  } catch (error) {
    throw explain(error);
  }
}

/** As somebody else, or bounded: through a chain of tools that are one process with the program. */
async function launchAs(
  request: LaunchRequest,
  stdio: Pick<SpawnRequest, 'stdin' | 'stdout' | 'stderr'>,
  { enterCgroup }: LaunchFiles,
  nonblocking: boolean,
  reserve: Descriptor,
): Promise<Launched> {
  const identity = identityOf(request);
  const env = environmentOf(request, identity?.home);
  requireNames(env);
  const path = request.program ?? lookUp(request.argv[0], env.PATH);
  requireFormat(resolve(request.cwd, path));
  const argv = [request.program ?? request.argv[0], ...request.argv.slice(1).map(textOf)];
  const chain = chainFor({ argv, guise: request, identity });
  const { reader, writer } = makePipe();
  const close = (): void => {
    reader.close();
    writer.close();
  };
  try {
    const pid = await spawn({ path: chain.path, argv: chain.argv, env: {}, cwd: '/', ...stdio, gate: reader.fd });
    reserve.close();
    const pidfd = openOrEnd(pid, nonblocking);
    const begin = async (): Promise<void> => {
      try {
        if (request.cgroup !== undefined) enterCgroup(pid);
        bound(pid, request);
        await become({ pid, pidfd, chain, reader, writer }, scriptOf(request, request.cwd, env));
      } catch (error) {
        undo(pid, pidfd);
        throw explain(error);
      } finally {
        close();
      }
    };
    return { pid, pidfd, begun: begin() };
  } catch (error) {
    close();
    throw error;
  }
}

/** A shell exports no others. */
function requireNames(env: Readonly<Record<string, string>>): void {
  const odd = Object.keys(env).find((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name));
  if (odd === undefined) return;
  const message =
    'must be letters, digits and _ together with user, group, limits, nice, umask, noNewPrivileges or cgroup';
  throw new Problem('EINVAL', `The name of a variable ${message}.`, {
    errors: [{ path: `/spawn/env/${odd}`, message }],
  });
}

type Keep = (fd: number) => Descriptor;

/**
 * The kernel gives the lowest number that is free, so a descriptor's number tells how many are taken.
 * @throws {SystemError} EMFILE, and closes it
 */
export function keepBelow<D extends Descriptor>(descriptor: D, limit: number): D {
  if (descriptor.fd < limit) return descriptor;
  descriptor.close();
  throw new SystemError('open', osConstants.errno.EMFILE);
}

/** A child that we cannot hold is one that nobody could wait for: it is ended again. */
function openOrEnd(pid: number, nonblocking: boolean): Pidfd {
  try {
    return Pidfd.open(pid, nonblocking);
  } catch (error) {
    process.kill(pid, 'SIGKILL');
    waitid(P_PID, pid, WEXITED); // at once: it has just been killed
    throw error;
  }
}

/** The kernel's answer would be the same errno for a missing program and a missing directory. */
function requireDirectory(path: string): void {
  const detail = 'The working directory';
  let isDirectory: boolean;
  try {
    isDirectory = statSync(path).isDirectory();
  } catch (error) {
    throw explain(error, detail);
  }
  if (!isDirectory) throw new Problem('ENOTDIR', `${detail} is not a directory.`, { syscall: 'posix_spawn' });
}

function source(from: StdinSource, files: LaunchFiles, keep: Keep): number {
  if (from === 'inherit') return 0;
  if (from === 'null') return files.nothing;
  const data = 'text' in from ? Buffer.from(from.text) : Buffer.from(from.base64, 'base64');
  // An unlinked file, not a pipe: nobody has to feed it, and it never blocks. The child gets a description of its own,
  // read-only and at the beginning.
  const path = join(files.scratch, `stdin-${process.pid}`);
  using writer = new Descriptor(openSync(path, 'wx', 0o600));
  try {
    const reader = keep(openSync(path, constants.O_RDONLY));
    for (let at = 0; at < data.length; ) at += writeSync(writer.fd, data, at);
    return reader.fd;
  } finally {
    unlinkSync(path);
  }
}

function target(to: OutputTarget, stream: 'stdout' | 'stderr', files: LaunchFiles, keep: Keep): number {
  if (to === 'inherit') return stream === 'stdout' ? 1 : 2;
  if (to === 'null') return files.nothing;
  const { O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_EXCL, O_NOCTTY, O_NONBLOCK } = constants;
  // Appending, so that several writers (a shell and its children, stdout and stderr) do not overwrite each other.
  if (to === 'capture') return keep(openSync(files.output(stream), O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0o600)).fd;
  const how = to.append === true ? O_APPEND : O_TRUNC;
  try {
    // Without O_NONBLOCK a FIFO that nobody reads would hold the whole daemon; with it the open fails, ENXIO.
    const flags = O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | how;
    const file = keep(to.literally ? openLiterally(to.file, flags, 0o666) : openSync(to.file, flags, 0o666));
    file.nonblocking = false;
    return file.fd;
  } catch (error) {
    throw explain(error, `The file for ${stream}`);
  }
}

const sentences: Record<string, string> = {
  ENOENT: 'does not exist',
  ENOTDIR: 'is below something that is no directory',
  ENOEXEC: 'is in no format that this kernel executes; a script needs a first line such as #!/bin/sh',
  EACCES: 'may not be used by the daemon: look at its permissions',
  E2BIG: 'was given more arguments and environment than the kernel takes',
};

const resources = new Set(['EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC']);

/** Turns what a system call said into what the client is told. */
export function explain(error: unknown, subject = 'The program'): unknown {
  if (error instanceof Problem) return error;
  const errno =
    error instanceof SystemError ? error.errno : error instanceof Error && 'code' in error ? String(error.code) : '';
  if (!isProblemErrno(errno)) return error;
  const syscall = 'posix_spawn';
  if (resources.has(errno))
    return new Problem(errno, 'The machine is out of a resource that a new process needs: try again later.', {
      syscall,
      status: 503,
      retry: { afterMs: 1000 },
    });
  const detail = `${subject} ${sentences[errno] ?? `cannot be used (${errno})`}.`;
  return new Problem(errno, detail, { syscall, ...(errno === 'EACCES' && { status: 403 }) });
}
