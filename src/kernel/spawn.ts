import { accessSync, constants as fs, statSync } from 'node:fs';
import { constants } from 'node:os';
import { isErrno, SystemError } from './errno.ts';
import { bind, bindBoth, bindIfThere } from './libc.ts';

/** What a new process is made of. Descriptors are the caller's own and stay open here. */
export interface SpawnRequest {
  /** The program's path, with a slash in it: what {@link lookUp} found. */
  path: string;
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Absolute. */
  cwd: string;
  /** What becomes descriptor 0, 1 and 2. */
  stdin: number;
  stdout: number;
  stderr: number | 'stdout';
  /** It stays in this session, as a job of its own; in the foreground of the terminal that its stdin then is. */
  job?: 'foreground' | 'background';
  /** What becomes descriptor 3, for what is not yet the program itself. */
  gate?: number;
}

const posixSpawn = bindBoth(
  'int posix_spawn(void *pid, const char *path, void *actions, void *attributes, char **argv, char **envp)',
);
const attributesInit = bind('int posix_spawnattr_init(void *attributes)');
const attributesSetFlags = bind('int posix_spawnattr_setflags(void *attributes, short flags)');
const attributesSetDefault = bind('int posix_spawnattr_setsigdefault(void *attributes, void *signals)');
const attributesSetMask = bind('int posix_spawnattr_setsigmask(void *attributes, void *signals)');
const actionsInit = bind('int posix_spawn_file_actions_init(void *actions)');
const actionsDestroy = bind('int posix_spawn_file_actions_destroy(void *actions)');
const actionsDup = bind('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)');
const actionsChdir = bind('int posix_spawn_file_actions_addchdir_np(void *actions, const char *path)');
// glibc 2.34. musl lacks it; there the CLOEXEC marks set at start do the same (see closeInherited).
const actionsCloseFrom = bindIfThere('int posix_spawn_file_actions_addclosefrom_np(void *actions, int from)');

// glibc 2.35. Without it the terminal stays the daemon's.
const actionsForeground = bindIfThere('int posix_spawn_file_actions_addtcsetpgrp_np(void *actions, int terminal)');

// The same values in glibc and musl.
const POSIX_SPAWN_SETPGROUP = 0x02;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;
const SIGSET_SIZE = 128;

// Opaque types: 336 and 80 bytes in glibc on x64, less elsewhere. Larger is harmless.
const OPAQUE_SIZE = 512;

const asLeader = attributesWith(POSIX_SPAWN_SETSID);
const asJob = attributesWith(POSIX_SPAWN_SETPGROUP);

function attributesWith(place: number): Buffer {
  const attributes = Buffer.alloc(OPAQUE_SIZE);
  attributesInit(attributes);
  attributesSetDefault(attributes, Buffer.alloc(SIGSET_SIZE, 0xff));
  attributesSetMask(attributes, Buffer.alloc(SIGSET_SIZE));
  attributesSetFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | place);
  return attributes;
}

/**
 * posix_spawn(3): a process that leads a session of its own, with default signal dispositions, an empty mask, and no
 * descriptor but 0, 1 and 2. It resolves after the exec, so the process is what it was asked to be.
 *
 * Until the exec the calling thread is suspended (CLONE_VFORK), for some 200 us, or as long as a slow file system takes to hand
 * the program over; so it is one of libuv's pool, and the event loop goes on. A child is the process's, whichever thread has made it.
 *
 * Not child_process: libuv would reap it behind our back. As long as nobody else reaps either, a pidfd_open on the pid that comes
 * back is on this very process.
 * @returns the pid
 * @throws {SystemError} of `posix_spawn`, with what exec, chdir or fork said
 */
export async function spawn(request: SpawnRequest): Promise<number> {
  const { actions, pid, args } = prepare(request);
  try {
    return result(await posixSpawn.aside(...args), pid);
  } finally {
    actionsDestroy(actions);
  }
}

/** The same, holding everything up: for the start of the daemon. */
export function spawnSync(request: SpawnRequest): number {
  const { actions, pid, args } = prepare(request);
  try {
    return result(posixSpawn.now(...args), pid);
  } finally {
    actionsDestroy(actions);
  }
}

function prepare(request: SpawnRequest): { actions: Buffer; pid: Buffer; args: unknown[] } {
  const actions = Buffer.alloc(OPAQUE_SIZE);
  actionsInit(actions);
  actionsDup(actions, request.stdin, 0);
  // Also where both numbers are the same, which clears the CLOEXEC that Node puts on its own 0, 1 and 2.
  actionsDup(actions, request.stdout, 1);
  actionsDup(actions, request.stderr === 'stdout' ? 1 : request.stderr, 2);
  if (request.gate !== undefined) actionsDup(actions, request.gate, 3);
  actionsCloseFrom?.(actions, request.gate === undefined ? 3 : 4);
  actionsChdir(actions, request.cwd);
  if (request.job === 'foreground') actionsForeground?.(actions, 0);
  const pid = Buffer.alloc(4);
  const env = Object.entries(request.env).map(([name, value]) => `${name}=${value}`);
  const attributes = request.job === undefined ? asLeader : asJob;
  return { actions, pid, args: [pid, request.path, actions, attributes, [...request.argv, null], [...env, null]] };
}

/** posix_spawn gives its errno as the result, not in errno. */
function result(errno: number, pid: Buffer): number {
  if (errno !== 0) throw new SystemError('posix_spawn', errno);
  return pid.readInt32LE();
}

/**
 * Finds a program as execvp(3) does, but in the PATH given: `posix_spawnp` would search the daemon's own.
 * @returns a path with a slash in it
 * @throws {SystemError} ENOENT; EACCES where the name is found, but nothing that may be executed
 */
export function lookUp(program: string, path: string): string {
  if (program.includes('/')) return program;
  let errno: number = constants.errno.ENOENT;
  if (program !== '')
    for (const directory of path.split(':')) {
      const candidate = `${directory === '' ? '.' : directory}/${program}`;
      try {
        if (!statSync(candidate).isFile()) continue;
        accessSync(candidate, fs.X_OK);
        return candidate;
      } catch (error) {
        if (isErrno(error, 'EACCES')) errno = constants.errno.EACCES;
      }
    }
  throw new SystemError('posix_spawn', errno);
}
