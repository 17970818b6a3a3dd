import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

/** The progress of a journal. */
export interface Progress {
  /** The number of the last log line that the tables have. */
  line: number;
  /** The newest seq. */
  head: number;
}

/** The digits of each number. The width is constant, so that one write(2) overwrites both numbers in place. */
const DIGITS = 16;

const textOf = ({ line, head }: Progress): string =>
  `${String(line).padStart(DIGITS)} ${String(head).padStart(DIGITS)}`;

/**
 * The progress of the journal in a state directory, stored outside of it: in the runtime directory, which no backup contains and which a
 * reboot empties. A journal with less progress than its mark was restored from a backup.
 */
export class Mark {
  /** The progress that an earlier daemon on this boot stored, `null` where none did. */
  readonly found: Progress | null;
  readonly #fd: number;

  private constructor(fd: number, directory: string) {
    this.#fd = fd;
    const before = readFileSync(fd, 'utf8');
    const numbers = /^ *(\d{1,16}) +(\d{1,16}) /.exec(before);
    this.found = numbers === null ? null : { line: Number(numbers[1]), head: Number(numbers[2]) };
    if (this.found === null) writeSync(fd, `${textOf({ line: 0, head: 0 })} ${directory}\n`, 0);
  }

  /**
   * Opens the mark of a state directory, or creates it.
   * @param marks a directory outside of all state directories, created where it is missing
   * @param state the state directory
   * @returns `null` where a mark cannot be created, or belongs to another user
   */
  static open(marks: string, state: string): Mark | null {
    try {
      const directory = realpathSync(state);
      const file = markFile(marks, directory);
      mkdirSync(marks, { recursive: true, mode: 0o700 });
      sweep(marks);
      const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
      const fd = openSync(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
      if (fstatSync(fd).uid === process.getuid!()) return new Mark(fd, directory);
      closeSync(fd);
      return null;
    } catch {
      return null;
    }
  }

  write(progress: Progress): void {
    try {
      writeSync(this.#fd, textOf(progress), 0);
    } catch {
      // The journal works without a mark.
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Returns the path of a mark. @param directory the real path of a state directory */
export function markFile(marks: string, directory: string): string {
  return join(marks, createHash('sha256').update(directory).digest('hex').slice(0, 32));
}

/** Removes the marks of state directories that do not exist any more. */
function sweep(marks: string): void {
  for (const name of readdirSync(marks)) {
    const path = join(marks, name);
    const directory = readFileSync(path, 'utf8').slice(2 * DIGITS + 2, -1);
    if (directory !== '' && !existsSync(directory)) rmSync(path, { force: true });
  }
}
