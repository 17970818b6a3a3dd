import { readSync } from 'node:fs';
import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { inotifyShortage } from './inotify-shortage.ts';
import { bind, checked } from './libc.ts';

const inotifyInit = bind('int inotify_init1(int flags)');
const inotifyAddWatch = bind('int inotify_add_watch(int fd, const char *path, unsigned int mask)');

const IN_NONBLOCK = 0o4000;
const IN_CLOEXEC = 0o2000000;
const IN_MODIFY = 0x002;
const IN_CLOSE_WRITE = 0x008;
const IN_Q_OVERFLOW = 0x4000;

/** struct inotify_event: wd, mask, cookie, len; then the name, padded with NULs. */
const HEADER = 16;

/** What became of the files of a directory since the last look. */
export interface FileChanges {
  /** Names of files that were written to. */
  written: Set<string>;
  /** Names of files that somebody who could write to them has closed. */
  closed: Set<string>;
  /** Events were lost, so any file may have changed. */
  overflow: boolean;
}

/**
 * inotify(7) on one directory: who writes to its files, and who stops. Node's own `fs.watch` does not tell of IN_CLOSE_WRITE,
 * which comes when the last descriptor of an open file description goes.
 */
export class DirectoryWatch {
  readonly #inotify: Descriptor;
  readonly #buffer = Buffer.alloc(64 * 1024);
  // Kept referenced for as long as it is wanted: koffi does not.
  #loop: InstanceType<typeof koffi.node.PollHandle> | null = null;

  /** @throws {SystemError} ENOENT; {Error} in one sentence where the user has no instance or no watch left */
  constructor(directory: string) {
    try {
      this.#inotify = new Descriptor(checked('inotify_init1', inotifyInit(IN_NONBLOCK | IN_CLOEXEC)));
      checked('inotify_add_watch', inotifyAddWatch(this.#inotify.fd, directory, IN_MODIFY | IN_CLOSE_WRITE));
    } catch (error) {
      const shortage = inotifyShortage(error);
      throw shortage === null ? error : new Error(shortage);
    }
  }

  /** Calls back once, from the event loop, when there is something to {@link drain}. */
  once(callback: () => void): void {
    this.#loop = koffi.node.poll(this.#inotify.fd, { readable: true }, () => {
      if (this.#loop === null) return;
      // It would call again and again until all is read, and that may be left to wait for a while.
      this.#loop.close();
      this.#loop = null;
      setImmediate(callback);
    });
  }

  drain(): FileChanges {
    const changes: FileChanges = { written: new Set(), closed: new Set(), overflow: false };
    for (;;) {
      const size = this.#read();
      if (size === 0) return changes;
      for (let at = 0; at < size; ) {
        const mask = this.#buffer.readUInt32LE(at + 4);
        const end = at + HEADER + this.#buffer.readUInt32LE(at + 12);
        const name = this.#buffer.toString('utf8', at + HEADER, end).replace(/\0+$/, '');
        if ((mask & IN_MODIFY) !== 0) changes.written.add(name);
        if ((mask & IN_CLOSE_WRITE) !== 0) changes.closed.add(name);
        if ((mask & IN_Q_OVERFLOW) !== 0) changes.overflow = true;
        at = end;
      }
    }
  }

  #read(): number {
    try {
      return readSync(this.#inotify.fd, this.#buffer);
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return 0;
      throw error;
    }
  }

  close(): void {
    this.#loop?.close();
    this.#loop = null;
    this.#inotify.close();
  }
}
