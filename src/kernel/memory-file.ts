import { constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

const memfdCreate = bind('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;
const MFD_EXEC = 0x10;

/** An anonymous file in memory, which the kernel frees with its last descriptor (memfd_create(2)). */
export class MemoryFile extends Descriptor {
  /**
   * Creates an empty file, close-on-exec.
   * @param name shown in /proc/PID/fd, for debugging only
   * @throws {SystemError} EMFILE, ENFILE, ENOMEM
   */
  static create(name: string): MemoryFile {
    return new MemoryFile(checked('memfd_create', memfdCreate(name, MFD_CLOEXEC)));
  }

  /**
   * Creates an empty file that may be executed.
   * @throws {SystemError} EACCES if the sysctl vm.memfd_noexec is 2 (6.3)
   */
  static executable(name: string): MemoryFile {
    try {
      return new MemoryFile(checked('memfd_create', memfdCreate(name, MFD_CLOEXEC | MFD_EXEC)));
    } catch (error) {
      if (!isErrno(error, 'EINVAL')) throw error;
      return MemoryFile.create(name); // kernels before 6.3 lack the flag: every such file is executable
    }
  }

  write(content: string | Buffer): void {
    const data = typeof content === 'string' ? Buffer.from(content) : content;
    for (let at = 0; at < data.length; ) at += writeSync(this.fd, data, at, data.length - at, at);
  }

  /** Opens the file again, read-only. The new open file description starts at offset 0. */
  reopened(): Descriptor {
    return new Descriptor(openSync(`/proc/self/fd/${this.fd}`, constants.O_RDONLY));
  }

  /** Reads the whole file, independent of the current offset. */
  read(): string {
    const data = Buffer.alloc(fstatSync(this.fd).size);
    for (let at = 0; at < data.length; ) {
      const count = readSync(this.fd, data, at, data.length - at, at);
      if (count === 0) break;
      at += count;
    }
    return data.toString();
  }
}
