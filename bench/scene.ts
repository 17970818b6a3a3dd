import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** A server in a process of its own. */
export interface Server extends AsyncDisposable {
  socket: string;
  pid: number;
}

/**
 * Everything that a benchmark creates on the machine: a temporary directory and processes. It is removed with this
 * process.
 */
export class Scene implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'waitd-bench-'));
  readonly #processes = new Map<number, ChildProcess | null>();
  #names = 0;

  /** Returns a unique path in the temporary directory. */
  path(name: string): string {
    this.#names += 1;
    return join(this.directory, `${this.#names}-${name}`);
  }

  /**
   * Creates a file of eight zero bytes: the stamp that the floor's children share with the process that waits for them.
   */
  stampFile(): string {
    const file = this.path('stamp');
    writeFileSync(file, Buffer.alloc(8));
    return file;
  }

  /** Builds the floor program. */
  buildFloor(): string {
    const program = this.path('floor');
    const sources = ['floor.c', 'floor-children.c'].map((name) => join(import.meta.dirname, name));
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-o', program, ...sources]);
    return program;
  }

  /** Runs a program to its end and returns its output. */
  async run(command: string, ...args: string[]): Promise<string> {
    const child = this.#start(command, args);
    let text = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const code = await new Promise((resolve) => child.once('close', (status, signal) => resolve(status ?? signal)));
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`);
    return text;
  }

  /** Runs one of the clients and returns its report. */
  async client<Task, Result>(name: string, task: Task): Promise<Result> {
    const script = join(import.meta.dirname, 'clients', `${name}.ts`);
    return JSON.parse(await this.run(process.execPath, script, JSON.stringify(task))) as Result;
  }

  /** Starts a server. It is ready when it prints a line of JSON with the expected msg. */
  async serve(socket: string, ...args: string[]): Promise<Server> {
    const child = this.#start(process.execPath, args);
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const stop = async (): Promise<void> => {
      child.kill('SIGTERM');
      await closed;
    };
    for await (const line of createInterface({ input: child.stdout! }))
      if ((JSON.parse(line) as { msg: string }).msg === 'ready') {
        child.stdout!.resume();
        return { socket, pid: child.pid!, [Symbol.asyncDispose]: stop };
      }
    throw new Error(`${args.join(' ')} did not start`);
  }

  #start(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, {
      env: { ...process.env, NODE_NO_WARNINGS: '1' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { pid } = child;
    if (pid === undefined) throw new Error(`${command} could not be started`);
    this.#processes.set(pid, child);
    child.once('exit', () => this.#processes.delete(pid));
    return child;
  }

  /** Registers a process that this one did not start and that must not outlive the scene. */
  endWithMe(pid: number): void {
    this.#processes.set(pid, null);
  }

  /** Ends the processes registered with {@link endWithMe}. */
  end(pid: number): void {
    if (!this.#processes.delete(pid)) return;
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      // It has already ended.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const [pid, child] of this.#processes)
      if (child === null) this.end(pid);
      else child.kill('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }
}
