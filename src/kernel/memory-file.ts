import { fstatSync, readSync, writeSync } from 'node:fs';
import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const memfdCreate = bind('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;

/** A file that lies in memory and has no name: what is in it goes with its last descriptor (memfd_create(2)). */
export class MemoryFile extends Descriptor {
  /** @throws {SystemError} EMFILE, ENFILE, ENOMEM */
  static create(name: string): MemoryFile {
    return new MemoryFile(checked('memfd_create', memfdCreate(name, MFD_CLOEXEC)));
  }

  write(text: string): void {
    this.writeBytes(Buffer.from(text));
  }

  writeBytes(data: Buffer): void {
    for (let at = 0; at < data.length; ) at += writeSync(this.fd, data, at, data.length - at, at);
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
