import { homedir } from 'node:os';
import type { Spawn } from '../../schemas/spawn.ts';
import { Problem } from '../errors/problem.ts';
import { explained } from './launch-problems.ts';

/** A secret one is passed to the program and shown nowhere. */
export type Argument = Spawn['argv'][number];

/** `literally`: no part of the path may be a symbolic link. */
type Literally = { literally?: boolean };
type Target = NonNullable<Spawn['stdout']>;
export type OutputTarget = Exclude<Target, object> | (Extract<Target, object> & Literally);

/** Stands for a secret argument wherever a command line is shown or stored. */
export const HIDDEN = '***';

export const textOf = (argument: Argument): string => (typeof argument === 'string' ? argument : argument.secret);
export const shownOf = (argument: Argument): string => (typeof argument === 'string' ? argument : HIDDEN);

/** A program to start, as a client asks for it. */
export interface LaunchRequest extends Omit<Spawn, 'stdin' | 'stdout' | 'stderr'> {
  /** The path of the program if it is known; else it is searched for in PATH. */
  program?: string;
  /** Whether `env` is the whole environment. */
  wholeEnvironment?: boolean;
  /** Whether a symbolic link in `cwd` is refused. */
  cwdLiterally?: boolean;
  /** `inherit` is for the daemon's own main program alone. */
  stdin: NonNullable<Spawn['stdin']> | 'inherit';
  stdout: OutputTarget;
  stderr: OutputTarget | 'stdout';
}

/** Returns the request of a client, with the defaults of its streams. */
export function launchRequestOf({ stdin = 'null', stdout = 'null', stderr = 'null', ...spawn }: Spawn): LaunchRequest {
  return { ...spawn, stdin, stdout, stderr };
}

/** The user of a container often has no entry in the password database. */
function ownHome(): string {
  try {
    return homedir();
  } catch {
    return '/';
  }
}

/** The environment of every process, unless the request overrides it. The daemon's own environment may hold secrets. */
const basicEnvironment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: ownHome(),
  LANG: 'C.UTF-8',
};

/** What a terminal understands. Every terminal emulator of today does. */
const TERM = 'xterm-256color';

/**
 * Returns the environment that the process gets.
 * @param home of the user that it runs as
 */
export function environmentOf(
  { env, tty, wholeEnvironment = false }: LaunchRequest,
  home: string = basicEnvironment.HOME,
): Record<string, string> & { PATH: string } {
  if (wholeEnvironment) return { ...env, PATH: env.PATH ?? basicEnvironment.PATH };
  return { ...basicEnvironment, ...(tty !== undefined && { TERM }), HOME: home, ...env };
}

/** The most bytes that execve(2) takes, whatever the stack limit: 3/4 of 8 MiB, with eight bytes for each pointer (fs/exec.c). */
const MOST_ARGUMENT_BYTES = 6 * 2 ** 20;

/**
 * Refuses arguments that the kernel is certain to refuse, before a table is made of them.
 * @throws {Problem} E2BIG
 */
export function requireArguments(argv: readonly string[], env: Readonly<Record<string, string>>): void {
  let bytes = 0;
  // A character is a byte at least.
  for (const argument of argv) bytes += argument.length + 9;
  for (const name in env) bytes += name.length + env[name]!.length + 10;
  if (bytes > MOST_ARGUMENT_BYTES) throw explained('E2BIG', 'The program');
}

/** More than any real PATH has. */
const MOST_DIRECTORIES = 1024;

/**
 * Returns the paths at which execvp(3) would look for a program, given the PATH of the process.
 * @throws {Problem} ENOENT for an empty name, EINVAL for a PATH of too many directories
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
