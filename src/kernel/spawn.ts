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
// Since glibc 2.34. musl lacks it: there closeInherited has set close-on-exec at startup.
const actionsCloseFrom = bindIfThere('int posix_spawn_file_actions_addclosefrom_np(void *actions, int from)');

// The same values in glibc and musl.
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const SIGSET_SIZE = 128;

// Enough for both opaque types, which have 336 and 80 bytes in glibc on x64 and fewer elsewhere.
const OPAQUE_SIZE = 512;

const attributes = Buffer.alloc(OPAQUE_SIZE);
attributesInit(attributes);
attributesSetDefault(attributes, Buffer.alloc(SIGSET_SIZE, 0xff));
attributesSetMask(attributes, Buffer.alloc(SIGSET_SIZE, 0xff));
attributesSetFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);

/** The descriptor of a program's own file, which the program must close. */
export const PROGRAM_FD = 1;

/**
 * Starts a program of system calls as a child of this thread, with every signal blocked, default dispositions and no environment.
 * Blocks the event loop until the exec, about 0.2 ms: the file is in memory, so no disk can delay it.
 *
 * Does not use child_process, because libuv would reap the child. The parent must be the main thread, the only one that survives
 * execve(2): PR_SET_PDEATHSIG sends its signal when the parent thread ends (prctl(2)).
 * @param name the program's argv[0]
 * @param channel becomes descriptor 0 of the program
 * @returns the pid
 * @throws {SystemError} from posix_spawn or memfd_create
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
    // posix_spawn(3) returns its error number instead of setting errno.
    const errno = posixSpawn(pid, path, actions, attributes, [name, null], [null]);
    if (errno !== 0) throw new SystemError('posix_spawn', errno);
    return pid.readInt32LE();
  } finally {
    actionsDestroy(actions);
  }
}
