import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { WebSocket } from 'ws';
import { eventually, temporaryDirectory } from './harness.ts';

/** The browsers that speak the DevTools protocol, by their programs. */
const PROGRAMS = ['chromium-headless-shell', 'chromium', 'google-chrome'];

/** @returns the path of a browser of this machine, `null` where it has none */
export function browserProgram(): string | null {
  const directories = (process.env.PATH ?? '').split(':');
  const paths = PROGRAMS.flatMap((name) => directories.map((directory) => join(directory, name)));
  return paths.find((path) => existsSync(path)) ?? null;
}

interface Message {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** A page in a browser of its own, with no credentials, no cache and no history. */
export class Page {
  /** What the console shows of errors, and the requests that failed. */
  readonly errors: string[] = [];
  readonly #socket: WebSocket;
  readonly #pending = new Map<number, (message: Message) => void>();
  #session: string | undefined;
  #last = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#hear(JSON.parse(String(data))));
  }

  static async open(t: Test, program: string): Promise<Page> {
    const profile = `--user-data-dir=${temporaryDirectory(t)}`;
    const flags = [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--remote-debugging-port=0',
    ];
    // A group of its own, because Debian's program is a script that starts the browser.
    const browser = spawn(program, [...flags, profile, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    const closed = new Promise<void>((resolve) => browser.once('close', () => resolve()));
    t.teardown(async () => {
      process.kill(-browser.pid!, 'SIGKILL');
      await closed; // all of the group have closed their end of the pipe
    });
    const { promise, resolve } = Promise.withResolvers<string>();
    createInterface({ input: browser.stderr }).on('line', (line) => {
      const address = /^DevTools listening on (ws:\S+)$/.exec(line)?.[1];
      if (address !== undefined) resolve(address);
    });
    const socket = new WebSocket(await promise);
    socket.on('error', () => {}); // the browser is killed with its connection open
    await new Promise((opened) => socket.once('open', opened));
    const page = new Page(socket);
    await page.#attach();
    return page;
  }

  async #attach(): Promise<void> {
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.#call('Target.attachToTarget', { targetId, flatten: true });
    this.#session = String(sessionId);
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await this.#call(`${domain}.enable`);
  }

  async goTo(url: string): Promise<void> {
    await this.#call('Page.navigate', { url });
  }

  /** Evaluates an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result } = await this.#call('Runtime.evaluate', { expression, returnByValue: true });
    return (result as { value: T }).value;
  }

  /** Waits until an expression is true in the page. */
  async until(expression: string): Promise<void> {
    await eventually(
      async () => (await this.evaluate(expression)) === true,
      `${expression}; ${this.errors.join('; ')}`,
    );
  }

  async #call(method: string, params: object = {}): Promise<Record<string, unknown>> {
    this.#last += 1;
    const id = this.#last;
    const answered = new Promise<Message>((resolve) => this.#pending.set(id, resolve));
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    this.#socket.send(JSON.stringify({ id, method, params, ...session }));
    const { result, error } = await answered;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  #hear(message: Message): void {
    if (message.id !== undefined) this.#pending.get(message.id)?.(message);
    const { method, params = {} } = message;
    const entry = params.entry as { level?: string } | undefined;
    const response = params.response as { status?: number } | undefined;
    const isError =
      method === 'Runtime.exceptionThrown' ||
      method === 'Network.loadingFailed' ||
      (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(String(params.type))) ||
      (method === 'Log.entryAdded' && ['error', 'warning'].includes(String(entry?.level))) ||
      (method === 'Network.responseReceived' && Number(response?.status) >= 400);
    if (isError) this.errors.push(JSON.stringify(params));
  }
}
