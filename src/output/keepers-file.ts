import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A keeper. Its start tells it from a later process of its pid. */
export interface KnownKeeper {
  pid: number;
  /** Since the boot, as /proc/PID/stat has it. */
  startTicks: number;
}

interface Content {
  boot: string;
  keepers: KnownKeeper[];
}

/** The file in the state directory by which the next daemon finds the keepers. */
export class KeepersFile {
  readonly #path: string;
  readonly #bootId: string;

  constructor(directory: string, bootId: string) {
    this.#path = join(directory, 'keepers');
    this.#bootId = bootId;
  }

  /** Returns the keepers that are listed for this boot: none if there is no file, or a damaged one. */
  read(): KnownKeeper[] {
    try {
      const { boot, keepers } = JSON.parse(readFileSync(this.#path, 'utf8')) as Content;
      return boot === this.#bootId ? keepers : [];
    } catch {
      return [];
    }
  }

  /** Replaces the list. It is not flushed to the disk, because no keeper survives a boot. */
  write(keepers: KnownKeeper[]): void {
    const content: Content = { boot: this.#bootId, keepers };
    writeFileSync(`${this.#path}.new`, JSON.stringify(content), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }

  remove(): void {
    try {
      rmSync(this.#path, { force: true });
    } catch {
      // It lists keepers that have ended, which the next daemon finds out.
    }
  }
}
