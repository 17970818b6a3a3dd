import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, type RequestOptions, stateOf, temporaryDirectory } from '../support/harness.ts';
import { random } from '../support/random.ts';
import { buildTwin, Twin } from '../support/twin.ts';

const SEED = Number(process.env.WALK_SEED ?? Math.floor(Math.random() * 2 ** 31));
const STEPS = Number(process.env.WALK_STEPS ?? 3000);
const SECONDS = Number(process.env.WALK_SECONDS ?? 40);

const CLIENTS = ['anna', 'ben', 'clara'] as const;
type ClientName = (typeof CLIENTS)[number];

/** Limits of live processes, and of handles per client. */
const MOST_PROCESSES = 4;
const MOST_HANDLES = 8;

const bits = { WNOHANG: 1, WSTOPPED: 2, WEXITED: 4, WCONTINUED: 8, WNOWAIT: 0x0100_0000 } as const;
type Option = keyof typeof bits;
const codes = ['', 'CLD_EXITED', 'CLD_KILLED', 'CLD_DUMPED', 'CLD_TRAPPED', 'CLD_STOPPED', 'CLD_CONTINUED'];

/** A child of the daemon, and of every real parent that represents a client. */
interface Target {
  pid: number;
  inode: string | null;
  argv: string[];
  state: 'running' | 'stopped' | 'trapped' | 'ended';
  /** A parent in C for each client with a handle: the daemon must tell the client what the kernel tells this parent. */
  parents: Map<ClientName, { twin: Twin; pid: number; handles: number }>;
}

interface HeldHandle {
  id: string;
  client: ClientName;
  target: Target;
  /** Shared by duplicates. */
  description: { nonblocking: boolean };
}

const next = random(SEED);
const below = (count: number): number => Math.floor(next() * count);
const choose = <T>(from: readonly T[]): T => from[below(from.length)]!;

/** The daemon, its clients, the corresponding parents, and a record of the operations. */
class Walk {
  readonly steps: string[] = [];
  readonly targets: Target[] = [];
  readonly handles: HeldHandle[] = [];
  readonly closed: HeldHandle[] = [];
  readonly #daemon: Daemon;
  readonly #program: string;
  readonly #as: (client: ClientName) => RequestOptions;

  constructor(daemon: Daemon, program: string, as: (client: ClientName) => RequestOptions) {
    this.#daemon = daemon;
    this.#program = program;
    this.#as = as;
  }

  get alive(): Target[] {
    return this.targets.filter(({ state }) => state !== 'ended');
  }

  #log(step: string): void {
    this.steps.push(step);
  }

  #expect(what: string, actual: unknown, expected: unknown): void {
    if (actual !== expected) throw new Error(`${what}: the daemon answers ${actual}, the kernel ${expected}`);
  }

  async step(): Promise<void> {
    const kinds = [
      'spawn',
      'open',
      'open',
      'dup',
      'close',
      'close',
      'stop',
      'continue',
      'end',
      'flag',
      'read',
      'stale',
    ];
    const kind = next() < 0.5 ? 'wait' : next() < 0.004 ? 'upgrade' : choose(kinds);
    if (kind === 'spawn') await this.#spawn();
    else if (kind === 'open') await this.#open();
    else if (kind === 'upgrade') await this.#upgrade();
    else if (['stop', 'continue', 'end'].includes(kind)) await this.#signal(kind as 'stop' | 'continue' | 'end');
    else if (kind === 'stale') await this.#waitOnClosed();
    else {
      const handle = this.handles.length === 0 ? undefined : choose(this.handles);
      if (handle === undefined) return;
      if (kind === 'wait') await this.#wait(handle);
      else if (kind === 'dup') await this.#dup(handle);
      else if (kind === 'close') await this.#close(handle);
      else if (kind === 'flag') await this.#flag(handle);
      else await this.#read(handle);
    }
  }

  async #spawn(): Promise<void> {
    if (this.alive.length >= MOST_PROCESSES) return;
    const client = choose(CLIENTS);
    const isTraced = next() < 0.2;
    const argv = isTraced ? [this.#program, 'act', 'traced-stops'] : ['sleep', '10000'];
    const nonblocking = next() < 0.5;
    this.#log(`${client} spawns ${isTraced ? 'a traced child' : 'a sleeper'}${nonblocking ? ', nonblocking' : ''}`);
    const answer = await this.#daemon.post('/v1/handles', { spawn: { argv }, nonblocking }, this.#as(client));
    this.#expect('spawn', answer.status, 201);
    const { pid, inode } = answer.body.process;
    const state = isTraced ? 'trapped' : 'running';
    const target: Target = { pid, inode, argv, state, parents: new Map() };
    this.targets.push(target);
    await this.#shows(pid, state);
    await this.#hold(answer.body.id, client, target, { nonblocking });
  }

  async #open(): Promise<void> {
    if (this.targets.length === 0) return;
    const target = choose(this.targets.slice(-2 * MOST_PROCESSES));
    const client = choose(CLIENTS);
    if (this.handles.filter((handle) => handle.client === client).length >= MOST_HANDLES) return;
    const nonblocking = next() < 0.5;
    this.#log(`${client} opens ${target.pid}, which is ${target.state}`);
    const open = { pid: target.pid, ...(target.inode !== null && { inode: target.inode }) };
    const answer = await this.#daemon.post('/v1/handles', { open, nonblocking }, this.#as(client));
    this.#expect('open', answer.status, target.state === 'ended' ? 404 : 201);
    if (answer.status !== 201) return;
    this.#expect('the state of what was opened', answer.body.state, viewed(target));
    await this.#hold(answer.body.id, client, target, { nonblocking });
  }

  /**
   * Registers a client's first handle on a process: from now on a parent in C represents it, whose child is in the same
   * state.
   */
  async #hold(id: string, client: ClientName, target: Target, description: HeldHandle['description']): Promise<void> {
    this.handles.push({ id, client, target, description });
    const known = target.parents.get(client);
    if (known !== undefined) {
      known.handles += 1;
      return;
    }
    const twin = new Twin(this.#program, '/');
    const pid = Number(await twin.ask('child', ...target.argv));
    await this.#shows(pid, target.state === 'trapped' ? 'trapped' : 'running');
    if (target.state === 'stopped') {
      process.kill(pid, 'SIGSTOP');
      await this.#shows(pid, 'stopped');
    }
    target.parents.set(client, { twin, pid, handles: 1 });
  }

  /** Waits until /proc shows a process in this state. */
  async #shows(pid: number, state: Exclude<Target['state'], 'ended'>): Promise<void> {
    const letters = { running: 'S', stopped: 'T', trapped: 't' };
    await eventually(() => stateOf(pid) === letters[state]);
  }

  async #dup({ id, client, target, description }: HeldHandle): Promise<void> {
    if (this.handles.filter((handle) => handle.client === client).length >= MOST_HANDLES) return;
    this.#log(`${client} duplicates its handle on ${target.pid}`);
    const answer = await this.#daemon.post('/v1/handles', { dup: id }, this.#as(client));
    this.#expect('dup', answer.status, 201);
    await this.#hold(answer.body.id, client, target, description);
  }

  async #close(handle: HeldHandle): Promise<void> {
    const { id, client, target } = handle;
    this.#log(`${client} closes a handle on ${target.pid}`);
    this.#expect('close', (await this.#daemon.request('DELETE', `/v1/handles/${id}`, this.#as(client))).status, 204);
    this.handles.splice(this.handles.indexOf(handle), 1);
    this.closed.push(handle);
    const parent = target.parents.get(client)!;
    parent.handles -= 1;
    if (parent.handles > 0) return;
    target.parents.delete(client);
    endParent(parent);
  }

  async #flag({ id, client, target, description }: HeldHandle): Promise<void> {
    description.nonblocking = !description.nonblocking;
    this.#log(`${client} makes a handle on ${target.pid} ${description.nonblocking ? 'nonblocking' : 'blocking'}`);
    const body = { nonblocking: description.nonblocking };
    const answer = await this.#daemon.request('PATCH', `/v1/handles/${id}`, { ...this.#as(client), body });
    this.#expect('the flag', answer.body.nonblocking, description.nonblocking);
  }

  async #read({ id, client, target, description }: HeldHandle): Promise<void> {
    // A stop or an exit without a waiter becomes visible as soon as the daemon receives it.
    this.#log(`${client} reads a handle on ${target.pid}`);
    await eventually(async () => {
      const { body } = await this.#daemon.get(`/v1/handles/${id}`, this.#as(client));
      this.#expect('the flag', body.nonblocking, description.nonblocking);
      return body.state === viewed(target);
    });
  }

  async #wait({ id, client, target, description: { nonblocking } }: HeldHandle): Promise<void> {
    const events = (['WEXITED', 'WSTOPPED', 'WCONTINUED'] as const).filter(() => next() < 0.6);
    const options: Option[] = [...events, ...(['WNOHANG', 'WNOWAIT'] as const).filter(() => next() < 0.3)];
    const sum = options.reduce((all, option) => all | bits[option], 0);
    this.#log(
      `${client} waits on ${target.pid}${nonblocking ? ', nonblocking' : ''}: ${options.join('|') || 'nothing'}`,
    );
    const right = await target.parents.get(client)!.twin.ask('wait', nonblocking ? 'n' : 'b', sum);
    const [word = '', code, status, , uid] = right.split(' ');
    const { status: http, body } = await this.#daemon.waitid(id, { options, timeoutMs: 0 }, this.#as(client));
    let answer = body.errno;
    if (http === 200 && body.siginfo === null) answer = body.timedOut ? 'blocks' : 'zero';
    else if (http === 200)
      answer = `event ${codes.indexOf(body.siginfo.code)} ${body.siginfo.status} ${body.siginfo.uid}`;
    this.#expect('waitid', answer, word === 'event' ? `event ${code} ${status} ${uid}` : word);
  }

  async #waitOnClosed(): Promise<void> {
    if (this.closed.length === 0) return;
    const { id, client } = choose(this.closed);
    const options: Option[] = next() < 0.5 ? ['WEXITED'] : ['WNOHANG'];
    this.#log(`${client} waits on a closed handle: ${options}`);
    const { body } = await this.#daemon.waitid(id, { options }, this.#as(client));
    this.#expect('waitid on a closed handle', body.errno, options[0] === 'WEXITED' ? 'ESTALE' : 'EINVAL');
  }

  async #signal(kind: 'stop' | 'continue' | 'end'): Promise<void> {
    const target = this.alive.length === 0 ? undefined : choose(this.alive);
    if (target === undefined || (kind === 'end' && next() < 0.6)) return;
    const signal = kind === 'stop' ? 'SIGSTOP' : kind === 'continue' ? 'SIGCONT' : 'SIGKILL';
    this.#log(`${signal} to ${target.pid}, which is ${target.state}`);
    const pids = [target.pid, ...[...target.parents.values()].map(({ pid }) => pid)];
    for (const pid of pids) process.kill(pid, signal);
    if (kind === 'end') {
      target.state = 'ended';
      for (const { twin } of target.parents.values())
        await eventually(async () => (await twin.ask('wait', 'n', bits.WEXITED | bits.WNOWAIT)).startsWith('event'));
      await eventually(() => ['Z', null].includes(stateOf(target.pid)));
      return;
    }
    if (target.state !== 'trapped') target.state = kind === 'stop' ? 'stopped' : 'running';
    for (const pid of pids) await this.#shows(pid, target.state);
  }

  async #upgrade(): Promise<void> {
    this.#log('the daemon is upgraded');
    await this.#daemon.upgrade();
    this.#daemon.disconnect();
  }

  end(): void {
    for (const target of this.targets) {
      for (const parent of target.parents.values()) endParent(parent);
      if (target.state !== 'ended') process.kill(target.pid, 'SIGKILL');
    }
  }
}

function viewed({ state }: Target): string {
  return { running: 'running', stopped: 'stopped', trapped: 'stopped', ended: 'exited' }[state];
}

function endParent({ twin, pid }: { twin: Twin; pid: number }): void {
  if (stateOf(pid) !== null) process.kill(pid, 'SIGKILL');
  twin.end();
}

t.comment(`WALK_SEED=${SEED}`);
t.test(`a random walk of clients compared with real parents, seed ${SEED}`, async (t) => {
  const tokens = join(temporaryDirectory(t), 'tokens');
  writeFileSync(tokens, CLIENTS.map((name) => `${name} token-of-${name}-0123456789\n`).join(''), { mode: 0o600 });
  const daemon = await Daemon.start(t, { args: ['--tokens', tokens] });
  const as = (client: ClientName): RequestOptions => ({
    headers: { authorization: `Bearer token-of-${client}-0123456789` },
  });
  const walk = new Walk(daemon, buildTwin(daemon.directory), as);
  t.teardown(() => walk.end());
  const end = performance.now() + SECONDS * 1000;
  let done = 0;
  try {
    for (; done < STEPS && performance.now() < end; done += 1) await walk.step();
  } catch (error) {
    throw new Error(`WALK_SEED=${SEED}, step ${done}: ${error}\n${walk.steps.slice(-60).join('\n')}`);
  }
  t.comment(`${done} steps`);
  t.ok(walk.steps.length > 0);
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});
