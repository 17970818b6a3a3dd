import { statSync } from 'node:fs';
import { basename } from 'node:path';

/** The minimum time between two checks of a path that is written to often: a check costs as much as a write. */
const CHECK_MS = 20;

/**
 * Checks whether paths still name the files that were opened. What is written to a file that was removed or replaced is lost for the
 * next start.
 */
export class InPlace {
  readonly #inodes = new Map<string, string>();
  readonly #nextChecks = new Map<string, number>();

  /** Expects the file that the path names now. */
  expect(path: string): void {
    this.#inodes.set(path, inodeOf(path));
  }

  /** @throws {OutOfPlace} where a path names no file, or another one */
  check(): void {
    for (const path of this.#inodes.keys()) if (!this.#has(path)) throw new OutOfPlace(basename(path));
  }

  /** Checks one path, at most every {@link CHECK_MS}. @returns whether the path named the same file now. After a failed check the result is true until the next one. */
  isInPlace(path: string): boolean {
    const now = performance.now();
    if (now < (this.#nextChecks.get(path) ?? 0)) return true;
    this.#nextChecks.set(path, now + CHECK_MS);
    return this.#has(path);
  }

  #has(path: string): boolean {
    return inodeOf(path) === this.#inodes.get(path);
  }
}

/** Identifies a file; for a path without one, returns the error. */
function inodeOf(path: string): string {
  try {
    const { dev, ino } = statSync(path);
    return `${dev} ${ino}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

/** A file of the journal was removed or replaced while it was open. */
export class OutOfPlace extends Error {
  constructor(name: string) {
    super(
      `${name} was removed from the state directory or replaced: put it back, or send SIGHUP to begin a new journal`,
    );
  }
}
