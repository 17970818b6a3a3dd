import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setAsideFile } from './database.ts';
import type { Statement } from './statement.ts';

/** What one commit wrote. */
export interface Line {
  /** One more than the number of the previous line; `null` in a log of an older version. */
  number: number | null;
  statements: Statement[];
}

/**
 * Changes that are on disk and not in the tables yet: one line of JSON for each commit, appended by one write(2). A transaction of SQLite
 * takes a dozen writes, and on an idle machine ten times as long, while a client waits. Like SQLite's write-ahead log without a sync, the
 * log outlives the daemon, and only a power cut can lose it.
 */
export class Log {
  readonly path: string;
  #fd: number;
  #size: number;

  /** @param directory the state directory, locked */
  constructor(directory: string) {
    this.path = join(directory, 'journal.log');
    // A path that is no regular file cannot be a log.
    if (statSync(this.path, { throwIfNoEntry: false })?.isFile() === false) setAsideFile(this.path);
    this.#fd = openSync(this.path, 'a', 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** Reads the lines of a daemon that died, up to a damaged one. Leaves out a last line without an end. */
  read(): { lines: Line[]; damage: Error | null } {
    const lines: Line[] = [];
    try {
      for (const line of readFileSync(this.path, 'utf8').split('\n').slice(0, -1)) lines.push(parse(line));
    } catch (error) {
      return { lines, damage: error as Error };
    }
    return { lines, damage: null };
  }

  /** Renames the file and begins an empty one. @returns the new name of the old file */
  setAside(): string {
    closeSync(this.#fd);
    const other = setAsideFile(this.path);
    this.#fd = openSync(this.path, 'a', 0o600);
    this.#size = 0;
    return other;
  }

  /** Appends a line, whole or not at all. @throws {Error} ENOSPC, EIO, EROFS */
  append({ number, statements }: Line): void {
    const line = `${JSON.stringify([number, statements])}\n`;
    const length = Buffer.byteLength(line);
    try {
      if (writeSync(this.#fd, line) < length) throw new Error('ENOSPC'); // another write would say so
    } catch (error) {
      ftruncateSync(this.#fd, this.#size);
      throw error;
    }
    this.#size += length;
  }

  /** Empties the log once the tables have all its lines. */
  clear(): void {
    if (this.#size > 0) ftruncateSync(this.#fd, 0);
    this.#size = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** @throws {Error} where the text is no line of a log */
function parse(text: string): Line {
  const value: unknown = JSON.parse(text);
  if (!Array.isArray(value)) throw new Error('a line is not a list of statements');
  const [number, statements] = typeof value[0] === 'number' ? value : [null, value];
  if (!Array.isArray(statements) || !statements.every(isStatement))
    throw new Error('a line is not a list of statements');
  return { number, statements };
}

function isStatement(value: unknown): value is Statement {
  return Array.isArray(value) && typeof value[0] === 'string' && Array.isArray(value[1]);
}
