import { statSync } from 'node:fs';
import { basename } from 'node:path';

/**
 * Finds out whether files that are open are still those that their paths name. What is written to a file that was removed, or that
 * another one has taken the place of, is on no disk for the next start.
 */
export class InPlace {
  readonly #inodes = new Map<string, string>();

  /** Expects the file that is there now. */
  expect(path: string): void {
    this.#inodes.set(path, inodeOf(path));
  }

  /** @returns the name of one that is not in its place, `null` where all are */
  missing(paths: Iterable<string> = this.#inodes.keys()): string | null {
    for (const path of paths) if (inodeOf(path) !== this.#inodes.get(path)) return basename(path);
    return null;
  }
}

function inodeOf(path: string): string {
  try {
    const { dev, ino } = statSync(path);
    return `${dev} ${ino}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

/** A file of the journal that is not in its place any more. */
export class OutOfPlace extends Error {
  constructor(name: string) {
    super(
      `${name} was removed from the state directory or replaced: put it back, or send SIGHUP to begin a new journal`,
    );
  }
}
