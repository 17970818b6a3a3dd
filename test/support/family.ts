import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** Compiles the program that makes families of processes. @returns its path */
export function buildFamily(directory: string): string {
  const program = join(directory, 'family');
  execFileSync('gcc', ['-O1', '-Wno-unused-result', '-o', program, join(import.meta.dirname, '../native/family.c')]);
  return program;
}

const byte = Buffer.alloc(1);

/**
 * A FIFO that all processes of a family hold open as their stdout. So the kernel tells when the last one has ended,
 * independent of the daemon.
 */
export class Line {
  readonly path: string;
  readonly fd: number;

  /** @param path of a FIFO */
  constructor(path: string) {
    this.path = path;
    this.fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  }

  /** Creates several of them. */
  static many(directory: string, count: number): Line[] {
    const paths = Array.from({ length: count }, (_, n) => join(directory, `line-${n}`));
    execFileSync('mkfifo', paths);
    return paths.map((path) => new Line(path));
  }

  /** Whether a process holds it. Once one has opened it, this stays false after the last one has ended. */
  get isHeld(): boolean {
    try {
      return readSync(this.fd, byte) > 0;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return true;
      throw error;
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
