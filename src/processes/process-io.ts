import { readFile } from 'node:fs/promises';
import { Listeners } from '../model/listeners.ts';
import { Semaphore } from '../model/semaphore.ts';

/** A read that takes longer is stuck, in milliseconds. */
const STUCK_MS = 250;

/**
 * Reads /proc/PID/io, one process at a time. The kernel makes a read wait while the process executes a program, and a program on a file
 * system of its own may take as long as it likes. So such a read occupies one thread at the most, and no answer waits for it.
 */
export class ProcessIo {
  readonly #readFile: (path: string) => Promise<string>;
  readonly #oneAtATime = new Semaphore(1);
  #isStuck = false;
  readonly #stuck = new Listeners();

  constructor(read = (path: string): Promise<string> => readFile(path, 'utf8')) {
    this.#readFile = read;
  }

  /** @returns the text; `null` if the kernel does not let the daemon read it, or a read is stuck */
  async read(pid: number): Promise<string | null> {
    if (this.#isStuck) return null;
    const { promise: stuck, resolve } = Promise.withResolvers<null>();
    const end = this.#stuck.on(() => resolve(null));
    try {
      return await Promise.race([this.#oneAtATime.run(() => this.#read(pid)), stuck]);
    } finally {
      end();
    }
  }

  async #read(pid: number): Promise<string | null> {
    const timer = setTimeout(() => {
      this.#isStuck = true;
      this.#stuck.emit();
    }, STUCK_MS);
    try {
      return await this.#readFile(`/proc/${pid}/io`);
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
      this.#isStuck = false;
    }
  }
}
