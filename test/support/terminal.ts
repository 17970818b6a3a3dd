import { type Daemon, eventually, type RequestOptions, type Response } from './harness.ts';

/** Many times what a busy machine needs to show something. */
const PATIENCE_MS = 20_000;

/** A program on a terminal of a daemon. */
export class Screen {
  readonly id: string;
  readonly pid: number;
  readonly #daemon: Daemon;
  readonly #options: RequestOptions;

  private constructor(daemon: Daemon, id: string, pid: number, options: RequestOptions) {
    this.#daemon = daemon;
    this.id = id;
    this.pid = pid;
    this.#options = options;
  }

  /** Starts a program on a terminal of 24 rows and 80 columns. @param more of the spawn */
  static async open(daemon: Daemon, argv: string[], more: object = {}, options: RequestOptions = {}): Promise<Screen> {
    const spawn = { argv, tty: { rows: 24, cols: 80 }, ...more };
    const { status, text, body } = await daemon.post('/v1/handles', { spawn }, options);
    if (status !== 201) throw new Error(text);
    return new Screen(daemon, body.id, body.process.pid, options);
  }

  /** Reads what the terminal has shown so far. */
  async text(): Promise<string> {
    return (await this.#daemon.get(`/v1/handles/${this.id}/stdout`, this.#options)).text;
  }

  /** Reads what it shows until no process has it open. */
  async whole(): Promise<string> {
    return (await this.#daemon.get(`/v1/handles/${this.id}/stdout?follow=1`, this.#options)).text;
  }

  /** Waits until it has shown something. */
  async shows(pattern: RegExp): Promise<void> {
    let text = '';
    const isShown = async (): Promise<boolean> => {
      text = await this.text();
      return pattern.test(text);
    };
    await eventually(isShown, `the terminal shows ${pattern}`, PATIENCE_MS).catch((error: Error) => {
      throw new Error(`${error.message}, but ${JSON.stringify(text)}`);
    });
  }

  type(keys: string, query = ''): Promise<Response> {
    return this.#daemon.write(this.id, keys, query, this.#options);
  }

  resize(rows: number, cols: number): Promise<Response> {
    return this.#daemon.request('PUT', `/v1/handles/${this.id}/tty`, { ...this.#options, body: { rows, cols } });
  }

  /** Waits until the program has ended. @returns its outcome */
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async outcome(): Promise<any> {
    return (await this.#daemon.waitid(this.id, { options: ['WEXITED', 'WNOWAIT'] }, this.#options)).body.outcome;
  }
}
