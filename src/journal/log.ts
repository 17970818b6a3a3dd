import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setAsideFile } from './database.ts';
import type { Statement } from './statement.ts';

/** What one commit has written. */
export interface Line {
  /** One more than the line before; `null` in a log of an older version. */
  number: number | null;
  statements: Statement[];
}

/**
 * Changes that are on disk, and not in their tables yet: a line of JSON each, appended by one write(2). A transaction of SQLite's is a
 * dozen of them, and as many pages to be found; where somebody waits for it, on a machine that was idle, it takes ten times as long.
 * It outlives the daemon as SQLite's own write-ahead log does without a sync: only a power cut can take it.
 */
export class Log {
  readonly path: string;
  #fd: number;
  #size: number;

  /** @param directory exists, is ours alone, and is locked */
  constructor(directory: string) {
    this.path = join(directory, 'journal.log');
    // What nobody could read is no file either.
    if (statSync(this.path, { throwIfNoEntry: false })?.isFile() === false) setAsideFile(this.path);
    this.#fd = openSync(this.path, 'a', 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** The lines of a daemon that died, up to one that is damaged. A last one that it did not finish is none. */
  read(): { lines: Line[]; damage: Error | null } {
    const lines: Line[] = [];
    try {
      for (const line of readFileSync(this.path, 'utf8').split('\n').slice(0, -1)) lines.push(parse(line));
    } catch (error) {
      return { lines, damage: error as Error };
    }
    return { lines, damage: null };
  }

  /** Puts the file aside under another name, and begins an empty one. @returns the other name */
  setAside(): string {
    closeSync(this.#fd);
    const other = setAsideFile(this.path);
    this.#fd = openSync(this.path, 'a', 0o600);
    this.#size = 0;
    return other;
  }

  /** @throws {Error} ENOSPC, EIO, EROFS; the log is then as it was */
  append({ number, statements }: Line): void {
    const line = `${JSON.stringify([number, statements])}\n`;
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

/** @throws {Error} where it is no line of a log */
function parse(text: string): Line {
  const value: unknown = JSON.parse(text);
  if (!Array.isArray(value)) throw new Error('a line is no list of statements');
  const [number, statements] = typeof value[0] === 'number' ? value : [null, value];
  if (!Array.isArray(statements) || !statements.every(isStatement)) throw new Error('a line is no list of statements');
  return { number, statements };
}

function isStatement(value: unknown): value is Statement {
  return Array.isArray(value) && typeof value[0] === 'string' && Array.isArray(value[1]);
}
