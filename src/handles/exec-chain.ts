import { randomBytes } from 'node:crypto';
import { accessSync, closeSync, constants, openSync, readFileSync, readSync, realpathSync, writeSync } from 'node:fs';
import { constants as osConstants, setPriority } from 'node:os';
import { basename } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Problem } from '../errors/problem.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { type Resource, setLimit } from '../kernel/limits.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { unread } from '../kernel/pipe.ts';
import { lookUp } from '../kernel/spawn.ts';
import { P_PID, WEXITED, WNOHANG, WNOWAIT, waitid } from '../kernel/waitid.ts';
import type { GuiseRequest, Identity } from './guise.ts';

/** How often it is looked whether the program has begun: nothing tells of an exec. */
const LOOK_MS = 1;

/** It takes some milliseconds. A chain that is not through by then never will be: somebody has stopped it. */
const LONGEST_MS = 30_000;

/** What the last shell ends with, where it is not execve(2) that failed. */
const NO_DIRECTORY = 125;

/** POSIX's own for a program that is found and cannot be executed; 127 is for one that is not found. */
const NOT_EXECUTABLE = 126;

const GATE = 'read -r go <&3 || exit 124; exec "$@"';

/**
 * The last of the chain. It takes the name by which we know it, reads what to do from descriptor 3 with what is built in (no
 * fork, no second process to wait for), up to the line that only we know, and becomes the program. Where the daemon dies
 * before that line, it ends.
 */
const BECOME = `printf %s "$0" >/proc/self/comm || exit 123
c=
while IFS= read -r l <&3; do
  if [ "$l" = "$0" ]; then exec 3<&-; eval "$c"; fi
  c="$c$l
"
done
exit 124`;

/** What a program is started through, so that it starts as somebody else: one process from the first to the last. */
export interface Chain {
  path: string;
  argv: string[];
  /** The name of the process right before it is the program. */
  name: string;
  /** Whether it waits for a first line, with the daemon's rights still. */
  gated: boolean;
}

export interface ChainRequest {
  argv: readonly string[];
  guise: GuiseRequest;
  identity: Identity | null;
}

/**
 * util-linux's setpriv between two shells. Nothing that the client gave reaches them before the rights are dropped: their
 * environment is empty (LD_PRELOAD would act in setpriv), and what the program is to have comes by the pipe, so that
 * it stands on no command line either.
 * @throws {Problem} EOPNOTSUPP where a tool is missing
 */
export function chainFor({ argv, guise, identity }: ChainRequest): Chain {
  const name = `waitd-${randomBytes(4).toString('hex')}`;
  const shell = findShell();
  const last = [shell, '-c', BECOME, name, ...argv];
  if (identity === null && guise.noNewPrivileges !== true) return { path: shell, argv: last, name, gated: false };
  const dropped = [find('setpriv', 'util-linux'), ...optionsOf(guise, identity), '--', ...last];
  // Once the uid has changed, the kernel asks for capabilities that even root's daemon may lack (CAP_SYS_RESOURCE, CAP_SYS_NICE).
  const gated = guise.limits !== undefined || guise.nice !== undefined || guise.cgroup !== undefined;
  return gated
    ? { path: shell, argv: [shell, '-c', GATE, 'sh', ...dropped], name, gated }
    : { path: dropped[0]!, argv: dropped, name, gated };
}

function optionsOf({ noNewPrivileges }: GuiseRequest, identity: Identity | null): string[] {
  const options = noNewPrivileges === true ? ['--no-new-privs'] : [];
  if (identity === null) return options;
  const { uid, gid, groups } = identity;
  return [
    ...options,
    `--reuid=${uid}`,
    `--regid=${gid}`,
    groups.length === 0 ? '--clear-groups' : `--groups=${groups.join()}`,
    '--inh-caps=-all',
    '--ambient-caps=-all',
  ];
}

/** The system's own tools, wherever it has them; not what a client's PATH says. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

function find(tool: string, from: string): string {
  try {
    return lookUp(tool, PATH);
  } catch {
    throw new Problem('EOPNOTSUPP', `This needs ${tool}, which this machine lacks: install ${from}.`);
  }
}

function findShell(): string {
  // busybox goes by the name that it is called by, and cannot change it.
  if (basename(realpathSync('/bin/sh')) !== 'busybox') return '/bin/sh';
  return find('dash', 'dash');
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** What the last shell does, line by line. */
export function scriptOf(guise: GuiseRequest, cwd: string, env: Readonly<Record<string, string>>): string {
  const exports = Object.entries(env).map(([name, value]) => `export ${name}=${quoted(value)}`);
  return [
    ...(guise.umask === undefined ? [] : [`umask ${guise.umask}`]),
    `cd -- ${quoted(cwd)} 2>/dev/null || exit ${NO_DIRECTORY}`,
    // What shells set by themselves.
    'unset PWD OLDPWD SHLVL',
    ...exports,
    'exec "$@"',
    '',
  ].join('\n');
}

export interface Underway {
  pid: number;
  pidfd: Pidfd;
  chain: Chain;
  reader: Descriptor;
  writer: Descriptor;
}

/**
 * What the daemon does itself to a process that waits at the beginning of its chain, with exact errors.
 * @throws {Problem} EPERM, EINVAL
 */
export function bound(pid: number, { limits = {}, nice }: GuiseRequest): void {
  for (const [resource, limit] of Object.entries(limits))
    try {
      const { soft, hard } = typeof limit === 'object' ? limit : { soft: limit, hard: limit };
      setLimit(pid, resource as Resource, soft, hard);
    } catch (error) {
      throw explain(error, 'prlimit', `the limit ${resource}`, 'raise');
    }
  if (nice === undefined) return;
  try {
    setPriority(pid, nice);
  } catch (error) {
    throw explain(error, 'setpriority', 'nice', 'lower');
  }
}

function explain(error: unknown, syscall: string, field: string, way: string): unknown {
  // Node's own setPriority has its errno in a place of its own.
  const { info } = error as { info?: { code?: string } };
  if (isErrno(error, 'EPERM', 'EACCES') || info?.code === 'EPERM' || info?.code === 'EACCES')
    return new Problem('EPERM', `The daemon lacks the privilege to ${way} ${field}.`, { syscall });
  if (isErrno(error, 'EINVAL')) return new Problem('EINVAL', `${field} is not possible: soft may not be above hard.`);
  return error;
}

/**
 * Hands a chain what it waits for, and looks until it is the program.
 * @throws {Problem} EPERM where the rights could not be dropped; EACCES, ENOENT of the program; EAGAIN where it was killed meanwhile
 */
export async function become({ pid, pidfd, chain, reader, writer }: Underway, script: string): Promise<void> {
  const text = Buffer.from(`${chain.gated ? 'go\n' : ''}${script}${chain.name}\n`);
  const last = performance.now() + LONGEST_MS;
  for (let sent = 0; performance.now() < last; await setTimeout(LOOK_MS)) {
    const ended = pidfd.askWaitid(WEXITED | WNOWAIT | WNOHANG);
    sent += sent < text.length && ended === null ? write(writer, text.subarray(sent)) : 0;
    const taken = sent === text.length && unread(reader) === 0;
    // Of a process that nobody has reaped the name is told even after its end.
    const waiting = !taken || nameOf(pid) === chain.name;
    if (!waiting) return;
    if (ended !== null && typeof ended === 'object') throw failure(taken, ended.siginfo);
  }
  throw neverBegun();
}

function write(writer: Descriptor, bytes: Buffer): number {
  try {
    return writeSync(writer.fd, bytes);
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return 0;
    throw error;
  }
}

function nameOf(pid: number): string {
  return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
}

function neverBegun(): Problem {
  return new Problem('EAGAIN', 'It was stopped or ended before it had begun: try again.', {
    syscall: 'posix_spawn',
    status: 503,
    retry: { afterMs: 1000 },
  });
}

function failure(taken: boolean, { code, status }: { code: string; status: number }): Problem {
  if (code !== 'CLD_EXITED') return neverBegun();
  if (!taken)
    return new Problem('EPERM', 'The kernel does not let the daemon become this user.', { syscall: 'setuid' });
  const forbidden = (what: string): Problem =>
    new Problem('EACCES', `${what} may not be used by this user: look at its permissions.`, {
      syscall: 'posix_spawn',
      status: 403,
    });
  if (status === NO_DIRECTORY) return forbidden('The working directory');
  if (status === NOT_EXECUTABLE) return forbidden('The program');
  return new Problem('ENOENT', 'The program does not exist for this user.', { syscall: 'posix_spawn' });
}

/**
 * Shells run a text without `#!` themselves, where execve(2) says ENOEXEC.
 * @param path as it was found
 * @throws {Problem} ENOEXEC
 */
export function requireFormat(path: string): void {
  try {
    accessSync('/proc/sys/fs/binfmt_misc/status');
    return; // any format may be registered
  } catch {
    // There are ELF and #!.
  }
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY);
  } catch {
    return; // the shell tells
  }
  try {
    const start = Buffer.alloc(4);
    readSync(fd, start);
    if (start.toString('latin1', 0, 2) !== '#!' && start.toString('latin1') !== '\x7fELF')
      throw new Problem(
        'ENOEXEC',
        'The program is in no format that this kernel executes; a script needs a first line such as #!/bin/sh.',
        {
          syscall: 'posix_spawn',
        },
      );
  } finally {
    closeSync(fd);
  }
}

/** Does away with a chain that came to nothing. */
export function undo(pid: number, pidfd: Pidfd): void {
  pidfd.signal(osConstants.signals.SIGKILL);
  waitid(P_PID, pid, WEXITED); // at once: it has ended, or has just been killed
  pidfd.close();
}
