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

/** How far a journal has come. */
export interface Progress {
  /** The number of the last log line that the tables have. */
  line: number;
  /** The newest seq. */
  head: number;
}

/** Each number has this many digits, so that both are written over in place by one write(2). */
const DIGITS = 16;

const textOf = ({ line, head }: Progress): string =>
  `${String(line).padStart(DIGITS)} ${String(head).padStart(DIGITS)}`;

/**
 * How far the journal of a state directory has come, outside of that directory: in the runtime directory, which no backup contains and
 * which a reboot empties. A journal that has come less far than its mark was restored from a backup.
 */
export class Mark {
  /** What an earlier daemon has left, on this boot; `null` where there is nothing. */
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
   * @param marks a directory outside of all state directories, made where it is missing
   * @param state the state directory
   * @returns `null` where there can be no mark, or a file there is not ours
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
      // It is a second opinion: the journal goes on without.
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** @param directory a state directory, by its real path */
export function markFile(marks: string, directory: string): string {
  return join(marks, createHash('sha256').update(directory).digest('hex').slice(0, 32));
}

/** Removes the marks of state directories that are gone. */
function sweep(marks: string): void {
  for (const name of readdirSync(marks)) {
    const path = join(marks, name);
    const directory = readFileSync(path, 'utf8').slice(2 * DIGITS + 2, -1);
    if (directory !== '' && !existsSync(directory)) rmSync(path, { force: true });
  }
}
