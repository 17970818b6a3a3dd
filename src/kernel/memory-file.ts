import { constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

const memfdCreate = bind('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;
const MFD_EXEC = 0x10;

/** A file that lies in memory and has no name: what is in it goes with its last descriptor (memfd_create(2)). */
export class MemoryFile extends Descriptor {
  /** @throws {SystemError} EMFILE, ENFILE, ENOMEM */
  static create(name: string): MemoryFile {
    return new MemoryFile(checked('memfd_create', memfdCreate(name, MFD_CLOEXEC)));
  }

  /**
   * One that may be executed.
   * @throws {SystemError} EACCES where vm.memfd_noexec=2 forbids that (6.3)
   */
  static executable(name: string): MemoryFile {
    try {
      return new MemoryFile(checked('memfd_create', memfdCreate(name, MFD_CLOEXEC | MFD_EXEC)));
    } catch (error) {
      if (!isErrno(error, 'EINVAL')) throw error;
      return MemoryFile.create(name); // before 6.3 every one may be
    }
  }

  write(content: string | Buffer): void {
    const data = typeof content === 'string' ? Buffer.from(content) : content;
    for (let at = 0; at < data.length; ) at += writeSync(this.fd, data, at, data.length - at, at);
  }

  /** Another descriptor of it, read-only, with a description of its own that is at the beginning. */
  reopened(): Descriptor {
    return new Descriptor(openSync(`/proc/self/fd/${this.fd}`, constants.O_RDONLY));
  }

  /** All of it, wherever the last write left off. */
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
