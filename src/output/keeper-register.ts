import { constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { FIRST_SLOT, NAME, REGISTER } from './keeper-program.ts';

/** Bytes for each slot: the inode number of the pipe and the name of its stream, as text, or nothing. */
const RECORD = 64;

/** A pipe that a keeper holds. */
export interface KeptPipe {
  slot: number;
  /** Of the stream. */
  name: string;
  reader: Descriptor;
}

/**
 * The list of what a keeper holds: a file in memory that both the daemon and the keeper have open. The next daemon reads it, and opens
 * the pipes anew by their names in /proc, because no other process can pass them to it.
 */
export class KeeperRegister {
  readonly #file: MemoryFile;

  private constructor(file: MemoryFile) {
    this.#file = file;
  }

  static create(): KeeperRegister {
    return new KeeperRegister(MemoryFile.create(NAME));
  }

  /** Opens the register of a keeper. */
  static of(pid: number): KeeperRegister {
    return new KeeperRegister(new MemoryFile(openSync(`/proc/${pid}/fd/${REGISTER}`, constants.O_RDWR)));
  }

  get fd(): number {
    return this.#file.fd;
  }

  /** Records which stream's pipe is in a slot. */
  record(slot: number, name: string, reader: Descriptor): void {
    this.#write(slot, `${fstatSync(reader.fd).ino} ${name}`);
  }

  /** Records that a slot is free. */
  erase(slot: number): void {
    this.#write(slot, '');
  }

  #write(slot: number, text: string): void {
    const bytes = Buffer.alloc(RECORD);
    bytes.write(text);
    writeSync(this.fd, bytes, 0, RECORD, slot * RECORD);
  }

  /** Opens the pipes of the keeper with this pid. A pipe that it had not received yet is left out. */
  *pipesOf(pid: number): Generator<KeptPipe> {
    const bytes = Buffer.alloc(fstatSync(this.fd).size);
    readSync(this.fd, bytes, 0, bytes.length, 0);
    for (let slot = FIRST_SLOT; slot * RECORD < bytes.length; slot += 1) {
      const text = bytes.toString('latin1', slot * RECORD, (slot + 1) * RECORD).replace(/\0+$/, '');
      const [inode, name] = text.split(' ');
      if (inode === undefined || name === undefined) continue;
      const reader = openPipe(`/proc/${pid}/fd/${slot}`, inode);
      if (reader !== null) yield { slot, name, reader };
    }
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function openPipe(path: string, inode: string): Descriptor | null {
  try {
    const reader = new Descriptor(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    if (String(fstatSync(reader.fd).ino) === inode) return reader;
    reader.close();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  return null;
}
