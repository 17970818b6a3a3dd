import type { Descriptor } from './descriptor.ts';
import { SystemError } from './errno.ts';
import { bind, bindIfThere } from './libc.ts';
import { MemoryFile } from './memory-file.ts';
import type { SyscallProgram } from './syscall-program.ts';

const posixSpawn = bind(
  'int posix_spawn(void *pid, const char *path, void *actions, void *attributes, char **argv, char **envp)',
);
const attributesInit = bind('int posix_spawnattr_init(void *attributes)');
const attributesSetFlags = bind('int posix_spawnattr_setflags(void *attributes, short flags)');
const attributesSetDefault = bind('int posix_spawnattr_setsigdefault(void *attributes, void *signals)');
const attributesSetMask = bind('int posix_spawnattr_setsigmask(void *attributes, void *signals)');
const actionsInit = bind('int posix_spawn_file_actions_init(void *actions)');
const actionsDestroy = bind('int posix_spawn_file_actions_destroy(void *actions)');
const actionsDup = bind('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)');
// glibc 2.34. musl lacks it; there the CLOEXEC marks set at start do the same (see closeInherited).
const actionsCloseFrom = bindIfThere('int posix_spawn_file_actions_addclosefrom_np(void *actions, int from)');

// The same values in glibc and musl.
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const SIGSET_SIZE = 128;

// Opaque types: 336 and 80 bytes in glibc on x64, less elsewhere. Larger is harmless.
const OPAQUE_SIZE = 512;

const attributes = Buffer.alloc(OPAQUE_SIZE);
attributesInit(attributes);
attributesSetDefault(attributes, Buffer.alloc(SIGSET_SIZE, 0xff));
attributesSetMask(attributes, Buffer.alloc(SIGSET_SIZE, 0xff));
attributesSetFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);

/** Where a program finds its own file. It closes it first. */
export const PROGRAM_FD = 1;

/**
 * Starts a program of system calls as a child of this thread, with every signal blocked, default dispositions, no environment, and
 * the given descriptor as its descriptor 0. The loop waits until it is executed, some 0.2 ms: its file lies in memory, so nothing
 * else can hold that up.
 *
 * Not child_process: libuv would reap it behind our back. A child of this very thread, which outlives execve(2) as no other does: a
 * process whose parent thread ends gets the signal that it has asked for with PR_SET_PDEATHSIG (prctl(2)).
 * @returns the pid
 * @throws {SystemError} of `posix_spawn` or `memfd_create`
 */
export function startProgram(program: SyscallProgram, name: string, channel: Descriptor): number {
  using file = MemoryFile.executable(name);
  file.write(program.file());
  const actions = Buffer.alloc(OPAQUE_SIZE);
  actionsInit(actions);
  try {
    actionsDup(actions, channel.fd, 0);
    actionsDup(actions, file.fd, PROGRAM_FD);
    actionsCloseFrom?.(actions, PROGRAM_FD + 1);
    const pid = Buffer.alloc(4);
    const path = `/proc/self/fd/${PROGRAM_FD}`;
    // posix_spawn gives its errno as the result, not in errno.
    const errno = posixSpawn(pid, path, actions, attributes, [name, null], [null]);
    if (errno !== 0) throw new SystemError('posix_spawn', errno);
    return pid.readInt32LE();
  } finally {
    actionsDestroy(actions);
  }
}
