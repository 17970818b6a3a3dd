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
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  body: any;
}

export interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Uses TCP and the first token instead of the Unix socket. */
  tcp?: boolean;
  /** Uses this Unix socket instead of the daemon's usual one. */
  socket?: string;
}

export interface DaemonOptions {
  args?: string[];
  env?: Record<string, string>;
  /** The directory of the daemon, to keep it for a restart. The default is a new one, removed after the test. */
  directory?: string;
  /** A command that starts node, such as `setpriv`. */
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

/** The time limit of every wait, many times what a busy machine needs. */
const PATIENCE_MS = 240_000;

/**
 * A prefix that kills a program when this process ends (PR_SET_PDEATHSIG). A fork or a change of user cancels it;
 * execve does not.
 */
const TIED = [programOf('setpriv'), '--pdeathsig', 'KILL'];

/** The temporary directory of this test file. Every process that it starts has the path in its environment. */
const BASE = mkdtempSync(join(tmpdir(), 'waitd-test-'));
chmodSync(BASE, 0o711);
process.env.WAITD_TEST = BASE;

/** The variable by which daemons share compiled code, where the run has a cache; see leaks.ts. */
const { NODE_COMPILE_CACHE } = process.env;
export const compileCache = NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE };
process.once('exit', () => {
  killStartedWith(BASE);
  removeTree(BASE);
});
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => process.exit(128 + constants.signals[signal]));

/** Finds a program in PATH, because some prefixes do not search it. */
function programOf(name: string): string {
  const places = (process.env.PATH ?? '').split(':').map((directory) => join(directory, name));
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`the tests need ${name}, which is not in the PATH`);
  return found;
}

/** A daemon in its own process, on a Unix socket and on a free TCP port. */
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
    // Twice, because a prefix that forks or changes the user cancels the first one.
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
      env: {
        PATH: process.env.PATH ?? '',
        HOME: directory,
        NODE_NO_WARNINGS: '1',
        XDG_RUNTIME_DIR: directory,
        ...compileCache,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = new Promise((resolve) => this.child.once('exit', (code) => resolve(code)));
    this.child.stderr!.on('data', (data) => this.log.push(String(data)));
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      this.log.push(line);
      // Processes spawned with `inherit` write to the same stream.
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

  /** Starts a daemon without waiting until it is ready. */
  static begin(t: Test, options: DaemonOptions = {}): Daemon {
    const daemon = new Daemon(options.directory ?? temporaryDirectory(t), options);
    t.teardown(() => daemon.#end());
    return daemon;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Waits until the daemon is ready. @throws {Error} with its log, if it ends before or refuses an upgrade */
  async ready(from = 0): Promise<void> {
    const died = this.exited.then(() => {
      throw new Error(`the daemon ended: ${this.log.join('\n')}`);
    });
    const { msg, reason } = await Promise.race([this.logged(['ready', REFUSED], from), died]);
    died.catch(() => {});
    if (msg === REFUSED) throw new Error(`${REFUSED}: ${reason}`);
  }

  /** Waits for the first log entry with one of these messages, from a position in the log on. */
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

  /** Upgrades the daemon in place. @returns once the next image is ready */
  async upgrade(): Promise<void> {
    const from = this.entries.length;
    this.child.kill('SIGHUP');
    await this.ready(from);
  }

  get token(): string {
    return readFileSync(join(this.directory, 'state', 'token'), 'utf8').trim();
  }

  /** Sends a request, and checks the answer against the contract. */
  request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const { body, headers = {}, signal, tcp = false, socket = this.socket } = options;
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const isRaw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body);
    const payload = isRaw ? (body as string | Buffer | undefined) : JSON.stringify(body);
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

  /** Spawns a process. @returns its handle */
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async spawn(argv: string[], more: object = {}, spawnMore: object = {}): Promise<any> {
    const answer = await this.post('/v1/handles', { spawn: { argv, ...spawnMore }, ...more });
    assert.equal(answer.status, 201, answer.text);
    return answer.body;
  }

  /** Writes to the standard input of a process. @param query with its `?` */
  write(id: string, bytes: string | Buffer, query = '', options: RequestOptions = {}): Promise<Response> {
    const headers = { 'content-type': 'application/octet-stream', ...options.headers };
    return this.request('POST', `/v1/handles/${id}/stdin${query}`, { ...options, body: bytes, headers });
  }

  waitid(id: string, body?: unknown, options?: RequestOptions): Promise<Response> {
    return this.post(`/v1/handles/${id}/waitid`, body, options);
  }

  signal(id: string, signal: string | number, scope = 'process'): Promise<Response> {
    return this.post(`/v1/handles/${id}/signal`, { signal, scope });
  }

  /** Reads every event of a handle so far. */
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async events(id: string): Promise<any[]> {
    return (await this.get(`/v1/events?handle=${id}&since=0&limit=1000`)).body.events;
  }

  ws(query = '', protocols: string[] = ['waitd.v1']): Socket {
    return new Socket(new WebSocket(`ws+unix:${this.socket}:/v1/events${query}`, protocols));
  }

  /** Reads the kernel features that the daemon has detected. */
  async features(): Promise<Features> {
    return (await this.get('/v1/node')).body.kernel.features;
  }

  /** Counts the open descriptors of the daemon. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Counts the zombies whose parent is the daemon. */
  get zombies(): number[] {
    return childrenOf(this.pid).filter((pid) => stateOf(pid) === 'Z');
  }

  /** Closes idle connections. */
  disconnect(): void {
    this.#agent.destroy();
  }

  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM');
    return this.exited;
  }

  /** Kills only the daemon, as in a crash. */
  async kill(): Promise<void> {
    this.#agent.destroy();
    if (this.#runs) this.child.kill('SIGKILL');
    await this.exited;
  }

  /** Kills the daemon and all its descendants. */
  async #end(): Promise<void> {
    if (this.#runs) {
      // A stopped daemon reaps no children, so that none of their pids is reused.
      this.child.kill('SIGSTOP');
      for (const pid of descendantsOf(this.pid)) kill(pid);
    }
    await this.kill();
    for (const pid of this.keepers) kill(pid);
  }

  /** Lists the keeper processes, which hold the pipes even after the daemon's end. */
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

/** The environment of a daemon that fails at the step in a file; see faults.ts. */
export function withFaults(file: string): Record<string, string> {
  return { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'faults.ts')}`, FAULT: file };
}

/** The environment of a daemon whose clocks a file changes; see clocks.ts. */
export function withClocks(file: string): Record<string, string> {
  return { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'clocks.ts')}`, CLOCKS: file };
}

/** The environment of a daemon in which the time limits of one file of src are a twentieth; see short-limits.ts. */
export function withShortLimits(file: 'http/limits.ts' | 'feed/bookmarks.ts'): Record<string, string> {
  return { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'short-limits.ts')}`, SHORT_LIMITS: file };
}

/** A WebSocket that records its frames and can wait for them. */
export class Socket {
  readonly ws: WebSocket;
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
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

  /** Waits for the first frame that matches, including those already received. */
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async first(fits: (frame: any) => boolean): Promise<any> {
    await this.until(() => this.frames.some(fits));
    return this.frames.find(fits);
  }

  /** Waits for a condition while frames keep arriving. */
  until(done: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (): void =>
      reject(new Error(`${done} is false after ${this.frames.length} frames: ${JSON.stringify(this.frames.at(-1))}`));
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

  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
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

/** Checks an answer's status, headers and body against the declaration of its operation. */
function checkContract(method: string, path: string, answer: Response): void {
  const route = contract.routeOf(method, path);
  const fault = route === null ? null : contract.answer(route, answer);
  assert.equal(fault, null, `${method} ${path}: ${answer.text.slice(0, 1000)}`);
}

/** Checks a frame of a WebSocket or an event stream against its schema. */
export function checkFrame(frame: unknown): void {
  assert.equal(contract.frame(frame), null, JSON.stringify(frame).slice(0, 1000));
}

export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(BASE, 't'));
  t.teardown(() => removeTree(directory));
  return directory;
}

/** Reads a file below /proc. @returns '' if its process or thread has ended; a read after the end fails with ESRCH */
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

/** Lists the signals that a process has handlers for. */
export function caughtBy(pid: number): Set<string> {
  const mask = BigInt(`0x${/^SigCgt:\t(.*)$/m.exec(ofProcess(`${pid}/status`))?.[1] ?? 0}`);
  const isIn = ([, number]: [string, number]): boolean => ((mask >> BigInt(number - 1)) & 1n) === 1n;
  return new Set(
    Object.entries(constants.signals)
      .filter(isIn)
      .map(([name]) => name),
  );
}

/**
 * Reads a command line with a NUL after each argument.
 * @returns '' for a zombie and for a process that does not exist
 */
export const commandLineOf = (pid: number): string => ofProcess(`${pid}/cmdline`);

export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) =>
    ofProcess(`${pid}/task/${tid}/children`).trim().split(' ').filter(Boolean).map(Number),
  );
}

/** Limits the time of a wait. @throws {Error} with the label if the time is over */
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
 * Polls a condition until it is true, for states in /proc that the kernel does not report otherwise.
 * @param label names the condition in the error; the default is its source text
 * @param withinMs the time limit; set it lower only if the test continues after a failure
 * @throws {Error} if the condition is not true in time
 */
export async function eventually(
  isSo: () => boolean | Promise<boolean>,
  label = String(isSo),
  withinMs = PATIENCE_MS,
): Promise<void> {
  const deadline = Date.now() + withinMs;
  for (let pause = 1; !(await isSo()); pause = Math.min(2 * pause, 20)) {
    if (Date.now() > deadline) throw new Error(`not true after ${withinMs / 1000} s: ${label}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** A FIFO on which a shell waits with `read -r line < PATH` until the test releases it. It never blocks the test. */
export class Gate {
  readonly path: string;
  readonly #fd: number;

  constructor(t: Test) {
    this.path = join(temporaryDirectory(t), 'gate');
    execFileSync('mkfifo', [this.path]);
    // Opened for reading too, so that neither the open nor a write blocks.
    this.#fd = openSync(this.path, 'r+');
    t.teardown(() => closeSync(this.#fd));
  }

  open(line = ''): void {
    writeSync(this.#fd, `${line}\n`);
  }
}
