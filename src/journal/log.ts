import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setAsideFile } from './database.ts';
import type { Statement } from './statements.ts';

/**
 * Changes that are on disk, and not in their tables yet: a line of JSON each, appended by one write(2). A transaction of SQLite's is a
 * dozen of them, and as many pages to be found; where somebody waits for it, on a machine that was idle, it takes ten times as long.
 * It outlives the daemon as SQLite's own write-ahead log does without a sync: only a power cut can take it.
 */
export class Log {
  readonly #path: string;
  #fd: number;
  #size: number;

  /** @param directory exists, is ours alone, and is locked */
  constructor(directory: string) {
    this.#path = join(directory, 'journal.log');
    // What nobody could read is no file either.
    if (statSync(this.#path, { throwIfNoEntry: false })?.isFile() === false) setAsideFile(this.#path);
    this.#fd = openSync(this.#path, 'a', 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** The lines of a daemon that died, up to one that is damaged. A last one that it did not finish is none. */
  read(): { lines: Statement[][]; damage: Error | null } {
    const lines: Statement[][] = [];
    try {
      for (const line of readFileSync(this.#path, 'utf8').split('\n').slice(0, -1))
        lines.push(JSON.parse(line) as Statement[]);
    } catch (error) {
      return { lines, damage: error as Error };
    }
    return { lines, damage: null };
  }

  /** Puts the file aside under another name, and begins an empty one. @returns the other name */
  setAside(): string {
    closeSync(this.#fd);
    const other = setAsideFile(this.#path);
    this.#fd = openSync(this.#path, 'a', 0o600);
    this.#size = 0;
    return other;
  }

  /** @throws {Error} ENOSPC, EIO, EROFS; the log is then as it was */
  append(statements: readonly Statement[]): void {
    const line = `${JSON.stringify(statements)}\n`;
    const length = Buffer.byteLength(line);
    try {
      if (writeSync(this.#fd, line) < length) throw new Error('ENOSPC'); // the rest of it would say so
    } catch (error) {
      ftruncateSync(this.#fd, this.#size);
      throw error;
    }
    this.#size += length;
  }

  /** All of it is in its tables. */
  clear(): void {
    if (this.#size > 0) ftruncateSync(this.#fd, 0);
    this.#size = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
