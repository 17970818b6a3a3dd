import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { WebSocket } from 'ws';
import type { Features } from '../../src/kernel/features.ts';
import { contract } from './judge.ts';
import { descendantsOf, kill, killStartedWith, removeTree } from './leftovers.ts';

export interface Response {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  body: any;
}

export interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Over TCP, with the first token, instead of the Unix socket. */
  tcp?: boolean;
  /** Over this Unix socket instead. */
  socket?: string;
}

export interface DaemonOptions {
  args?: string[];
  env?: Record<string, string>;
  /** Kept over a restart; made and removed where it is missing. */
  directory?: string;
  /** What starts node; `setpriv` and the like. */
  prefix?: string[];
}

export interface LogEntry {
  level: number;
  msg: string;
  address?: string;
  reason?: string;
  upgraded?: boolean;
}

const REFUSED = 'upgrade refused; this image keeps running';

const MAIN = join(import.meta.dirname, '../../src/main.ts');

/** What a machine takes many times less for, however busy it is: beyond it something will not come any more. */
const PATIENCE_MS = 240_000;

/** Kills a program when this process ends, however that happens. A fork and a change of user undo it, an execve does not. */
const TIED = [programOf('setpriv'), '--pdeathsig', 'KILL'];

/** Where this test file keeps everything. What it starts has this path in its environment, a daemon's children in HOME. */
const BASE = mkdtempSync(join(tmpdir(), 'waitd-test-'));
chmodSync(BASE, 0o711);
process.env.WAITD_TEST = BASE;
process.once('exit', () => {
  killStartedWith(BASE);
  removeTree(BASE);
});
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => process.exit(128 + constants.signals[signal]));

/** Where the PATH has a program: not every prefix looks it up again. */
function programOf(name: string): string {
  const places = (process.env.PATH ?? '').split(':').map((directory) => join(directory, name));
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`the tests need ${name}, which is not in the PATH`);
  return found;
}

/** A daemon in a process of its own, on a Unix socket and on a TCP port that it picked. */
export class Daemon {
  readonly directory: string;
  readonly child: ChildProcess;
  readonly log: string[] = [];
  readonly entries: LogEntry[] = [];
  readonly socket: string;
  #look: () => void = () => {};
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4000 });
  port = 0;
  readonly exited: Promise<number | null>;

  private constructor(directory: string, { args = [], env = {}, prefix = [] }: DaemonOptions) {
    this.directory = directory;
    this.socket = join(directory, 'waitd.sock');
    // Once for the prefix, and once more for the daemon where the prefix forks it or changes the user.
    const [command = '', ...rest] = [...TIED, ...prefix, ...TIED, process.execPath, MAIN, 'serve'];
    const endpoints = [
      '--listen',
      `unix:${this.socket}`,
      '--listen',
      'tcp:127.0.0.1:0',
      '--state-dir',
      join(directory, 'state'),
    ];
    this.child = spawn(command, [...rest, ...endpoints, ...args], {
      env: { PATH: process.env.PATH ?? '', HOME: directory, NODE_NO_WARNINGS: '1', XDG_RUNTIME_DIR: directory, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
    this.child.stderr!.on('data', (data) => this.log.push(String(data)));
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      this.log.push(line);
      // What was spawned with `inherit` writes there too.
      if (!line.startsWith('{')) return;
      const entry = JSON.parse(line) as LogEntry;
      if (entry.address?.startsWith('tcp:')) this.port = Number(entry.address.split(':').at(-1));
      this.entries.push(entry);
      this.#look();
    });
  }

  static async start(t: Test, options: DaemonOptions = {}): Promise<Daemon> {
    const daemon = Daemon.begin(t, options);
    await daemon.ready();
    return daemon;
  }

  /** One that is only about to start. */
  static begin(t: Test, options: DaemonOptions = {}): Daemon {
    const daemon = new Daemon(options.directory ?? temporaryDirectory(t), options);
    t.teardown(() => daemon.#end());
    return daemon;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** @throws {Error} with its log, where it ends before that, or refuses to be replaced */
  async ready(from = 0): Promise<void> {
    const died = this.exited.then(() => {
      throw new Error(`the daemon ended: ${this.log.join('\n')}`);
    });
    const { msg, reason } = await Promise.race([this.logged(['ready', REFUSED], from), died]);
    died.catch(() => {});
    if (msg === REFUSED) throw new Error(`${REFUSED}: ${reason}`);
  }

  /** The first log entry with one of these messages, from a place in the log on; be it there already or still to come. */
  async logged(messages: string | readonly string[], from = 0): Promise<LogEntry> {
    const wanted = [messages].flat();
    const find = (): LogEntry | undefined => this.entries.slice(from).find(({ msg }) => wanted.includes(msg));
    const found = new Promise<LogEntry>((resolve) => {
      const before = this.#look;
      this.#look = () => {
        before();
        const entry = find();
        if (entry !== undefined) resolve(entry);
      };
      this.#look();
    });
    return within(() => `"${wanted.join('" or "')}" was not logged:\n${this.log.join('\n')}`, found);
  }

  /** Has it replaced in place. @returns once the next image is ready */
  async upgrade(): Promise<void> {
    const from = this.entries.length;
    this.child.kill('SIGHUP');
    await this.ready(from);
  }

  get token(): string {
    return readFileSync(join(this.directory, 'state', 'token'), 'utf8').trim();
  }

  /** One request; the contract's promises about every answer are checked on the way. */
  request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const { body, headers = {}, signal, tcp = false, socket = this.socket } = options;
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const payload = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
    const request = httpRequest(
      {
        ...(tcp ? { host: '127.0.0.1', port: this.port } : { socketPath: socket }),
        method,
        path,
        agent: this.#agent,
        ...(signal !== undefined && { signal }),
        headers: {
          ...(payload !== undefined && {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(payload),
          }),
          ...(tcp && headers.authorization === undefined && { authorization: `Bearer ${this.token}` }),
          ...headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const json = response.headers['content-type']?.includes('json') && text !== '';
          const answer = {
            status: response.statusCode!,
            headers: response.headers,
            text,
            body: json ? JSON.parse(text) : null,
          };
          try {
            checkAnswer(answer);
            checkContract(method, path, answer);
            resolve(answer);
          } catch (error) {
            reject(error);
          }
        });
      },
    );
    request.on('error', reject);
    request.end(payload);
    return promise;
  }

  get(path: string, options?: RequestOptions): Promise<Response> {
    return this.request('GET', path, options);
  }

  post(path: string, body?: unknown, options: RequestOptions = {}): Promise<Response> {
    return this.request('POST', path, { ...options, ...(body !== undefined && { body }) });
  }

  /** Spawns, and gives the handle. */
  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  async spawn(argv: string[], more: object = {}, spawnMore: object = {}): Promise<any> {
    const answer = await this.post('/v1/handles', { spawn: { argv, ...spawnMore }, ...more });
    assert.equal(answer.status, 201, answer.text);
    return answer.body;
  }

  waitid(id: string, body?: unknown, options?: RequestOptions): Promise<Response> {
    return this.post(`/v1/handles/${id}/waitid`, body, options);
  }

  signal(id: string, signal: string | number, scope = 'process'): Promise<Response> {
    return this.post(`/v1/handles/${id}/signal`, { signal, scope });
  }

  /** Every event of a handle so far. */
  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  async events(id: string): Promise<any[]> {
    return (await this.get(`/v1/events?handle=${id}&since=0&limit=1000`)).body.events;
  }

  ws(query = '', protocols: string[] = ['waitd.v1']): Socket {
    return new Socket(new WebSocket(`ws+unix:${this.socket}:/v1/events${query}`, protocols));
  }

  /** What the kernel below has of pidfds, as the daemon found it out. */
  async features(): Promise<Features> {
    return (await this.get('/v1/node')).body.kernel.features;
  }

  /** Open descriptors of the daemon. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Zombies whose parent is the daemon. */
  get zombies(): number[] {
    return childrenOf(this.pid).filter((pid) => stateOf(pid) === 'Z');
  }

  /** Ends the connections that are kept for the next request. */
  disconnect(): void {
    this.#agent.destroy();
  }

  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM');
    return this.exited;
  }

  /** Kills it alone, as a crash would end it. */
  async kill(): Promise<void> {
    this.#agent.destroy();
    if (this.#runs) this.child.kill('SIGKILL');
    await this.exited;
  }

  /** Kills it, and everything below it. */
  async #end(): Promise<void> {
    if (this.#runs) {
      // While it is stopped it reaps nobody, so that no pid of those becomes another's.
      this.child.kill('SIGSTOP');
      for (const pid of descendantsOf(this.pid)) kill(pid);
    }
    await this.kill();
    for (const pid of this.keepers) kill(pid);
  }

  /** The processes that hold pipes for it, also when it is gone. */
  get keepers(): number[] {
    const file = join(this.directory, 'state', 'keepers');
    if (!existsSync(file)) return [];
    const { keepers } = JSON.parse(readFileSync(file, 'utf8')) as { keepers: { pid: number }[] };
    return keepers.map(({ pid }) => pid).filter((pid) => commandLineOf(pid) === 'waitd-keeper\0');
  }

  get #runs(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }
}

/** What has a daemon fail at the step that is written in a file; see faults.ts. */
export function withFaults(file: string): Record<string, string> {
  return { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'faults.ts')}`, FAULT: file };
}

/** What moves a daemon's clocks by what is written in a file; see clocks.ts. */
export function withClocks(file: string): Record<string, string> {
  return { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'clocks.ts')}`, CLOCKS: file };
}

/** A WebSocket whose frames are kept and can be awaited. */
export class Socket {
  readonly ws: WebSocket;
  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  readonly frames: any[] = [];
  readonly closed: Promise<{ code: number; reason: string }>;
  #look: () => void = () => {};

  constructor(ws: WebSocket) {
    this.ws = ws;
    ws.on('message', (data) => {
      const frame: unknown = JSON.parse(String(data));
      checkFrame(frame);
      this.frames.push(frame);
      this.#look();
    });
    ws.on('error', () => {});
    this.closed = new Promise((resolve) => ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
  }

  /** The first frame that fits, be it there already or still to come. */
  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  async first(fits: (frame: any) => boolean): Promise<any> {
    await this.until(() => this.frames.some(fits));
    return this.frames.find(fits);
  }

  /** Waits until it is so, for as long as frames keep coming. */
  until(done: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (): void =>
      reject(new Error(`${done} is not so after ${this.frames.length} frames: ${JSON.stringify(this.frames.at(-1))}`));
    const timer = setTimeout(giveUp, PATIENCE_MS).unref();
    this.#look = () => {
      timer.refresh();
      if (!done()) return;
      clearTimeout(timer);
      resolve();
    };
    this.#look();
    return promise;
  }

  // biome-ignore lint/suspicious/noExplicitAny: tests say what they expect of it
  get events(): any[] {
    return this.frames.filter((frame) => frame.type === 'event');
  }

  send(frame: unknown): void {
    this.ws.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  close(): void {
    this.ws.terminate();
  }
}

function checkAnswer({ status, headers, body, text }: Response): void {
  assert.equal(headers['cache-control'], 'no-store');
  assert.ok(headers['x-request-id'], 'every answer carries a request id');
  if (status < 400 || (status === 503 && body?.checks)) return;
  assert.match(headers['content-type'] ?? '', /^application\/problem\+json/, text);
  for (const field of ['type', 'title', 'detail', 'instance', 'errno'])
    assert.equal(typeof body[field], 'string', text);
  assert.equal(body.status, status);
  assert.equal(body.type, `/problems/${body.errno}`);
  assert.equal(body.instance, headers['x-request-id']);
  assert.doesNotMatch(text, /node_modules|\.ts:\d+|at .+ \(/, 'no stack trace leaves the daemon');
}

/** Any answer must be one that the operation declares, by its status, its headers and its body. */
function checkContract(method: string, path: string, answer: Response): void {
  const route = contract.routeOf(method, path);
  const fault = route === null ? null : contract.answer(route, answer);
  assert.equal(fault, null, `${method} ${path}: ${answer.text.slice(0, 1000)}`);
}

/** Any frame of a WebSocket or an event stream must fit its schema. */
export function checkFrame(frame: unknown): void {
  assert.equal(contract.frame(frame), null, JSON.stringify(frame).slice(0, 1000));
}

export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(BASE, 't'));
  t.teardown(() => removeTree(directory));
  return directory;
}

/** A file below /proc, or '' where its process, or thread, is gone by now: between the open and the read that is ESRCH. */
function ofProcess(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, 'utf8');
  } catch {
    return '';
  }
}

export function stateOf(pid: number): string | null {
  const text = ofProcess(`${pid}/stat`);
  return text.slice(text.lastIndexOf(')') + 2)[0] ?? null;
}

/** The signals that a process has handlers for. */
export function caughtBy(pid: number): Set<string> {
  const mask = BigInt(`0x${/^SigCgt:\t(.*)$/m.exec(ofProcess(`${pid}/status`))?.[1] ?? 0}`);
  const isIn = ([, number]: [string, number]): boolean => ((mask >> BigInt(number - 1)) & 1n) === 1n;
  return new Set(
    Object.entries(constants.signals)
      .filter(isIn)
      .map(([name]) => name),
  );
}

/** With a NUL after each argument; '' for a zombie and for nobody. */
export const commandLineOf = (pid: number): string => ofProcess(`${pid}/cmdline`);

export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) =>
    ofProcess(`${pid}/task/${tid}/children`).trim().split(' ').filter(Boolean).map(Number),
  );
}

/** @throws {Error} with the label, where something does not come within what is reasonable */
async function within<T>(label: () => string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Error(`${label()}, and ${PATIENCE_MS / 1000} s are over`)),
    PATIENCE_MS,
  ).unref();
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Looks until it is so: for what the kernel shows in /proc and tells nobody.
 * @param label what is expected, for the error; the condition's own text if it is left out
 * @param withinMs less than what a busy machine needs only where the test goes on without it
 * @throws {Error} where it does not come to be so within what is reasonable
 */
export async function eventually(
  isSo: () => boolean | Promise<boolean>,
  label = String(isSo),
  withinMs = PATIENCE_MS,
): Promise<void> {
  const deadline = Date.now() + withinMs;
  for (let pause = 1; !(await isSo()); pause = Math.min(2 * pause, 20)) {
    if (Date.now() > deadline) throw new Error(`not so after ${withinMs / 1000} s: ${label}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Something that a shell waits for with `read -r line < PATH`, so that a test says when it goes on. It never blocks the test. */
export class Gate {
  readonly path: string;
  readonly #fd: number;

  constructor(t: Test) {
    this.path = join(temporaryDirectory(t), 'gate');
    execFileSync('mkfifo', [this.path]);
    // Open for reading too, so that neither this nor a write waits for a reader.
    this.#fd = openSync(this.path, 'r+');
    t.teardown(() => closeSync(this.#fd));
  }

  open(line = ''): void {
    writeSync(this.#fd, `${line}\n`);
  }
}
