import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';

/** The answers of the kernel itself, from a small C program in its own process. */
export class Twin {
  readonly process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(program: string, cwd: string) {
    this.process = spawn(program, { cwd, stdio: ['pipe', 'pipe', 'inherit'] });
    this.#reader = createInterface({ input: this.process.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async ask(...words: (string | number)[]): Promise<string> {
    this.process.stdin!.write(`${words.join('\t')}\n`);
    return (await this.#lines.next()).value as string;
  }

  end(): void {
    this.#reader.close();
    this.process.kill('SIGKILL');
  }
}

/** Compiles the program. @returns its path */
export function buildTwin(directory: string): string {
  const program = join(directory, 'twin');
  const source = join(import.meta.dirname, '../native/twin.c');
  execFileSync('gcc', ['-O1', '-Wno-unused-result', '-o', program, source, '-lpthread']);
  return program;
}
