import t from 'tap';
import { WebSocket } from 'ws';
import { childrenOf, Daemon, eventually } from '../support/harness.ts';
import { Caller } from './crash/caller.ts';

const CHILDREN = 500;
const SUBSCRIBERS = 50;
const UPGRADES = 5;

/** One that resumes whenever its socket is closed, and keeps what it heard. */
class Listener {
  readonly seqs: number[] = [];
  readonly codes: number[] = [];
  readonly #socketPath: string;
  #socket: WebSocket | null = null;
  #ended = false;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#connect();
  }

  #connect(): void {
    const since = this.seqs.at(-1) ?? 0;
    this.#socket = new WebSocket(`ws+unix:${this.#socketPath}:/v1/events?since=${since}`, ['waitd.v1']);
    this.#socket.on('message', (data) => {
      const frame = JSON.parse(String(data));
      if (frame.type === 'event') this.seqs.push(frame.seq);
    });
    this.#socket.on('error', () => {});
    this.#socket.on('close', (code) => {
      this.codes.push(code);
      if (!this.#ended) setImmediate(() => this.#connect());
    });
  }

  end(): void {
    this.#ended = true;
    this.#socket?.terminate();
  }
}

t.test(`${UPGRADES} upgrades with ${CHILDREN} children and ${SUBSCRIBERS} subscribers`, async (t) => {
  const daemon = await Daemon.start(t);
  const { pid } = daemon;
  const caller = new Caller(daemon.socket);
  const listeners = Array.from({ length: SUBSCRIBERS }, () => new Listener(daemon.socket));
  const ids: string[] = [];
  const spawn = async (argv: string[], key: string): Promise<string> => {
    const { status, text, body } = await caller.post('/v1/handles', { spawn: { argv } }, key);
    if (status !== 201) throw new Error(text);
    ids.push(body.id);
    return body.id;
  };
  const lasting = await Promise.all(Array.from({ length: CHILDREN }, (_, n) => spawn(['sleep', '1000'], `child-${n}`)));
  const parked = lasting.slice(0, 50).map((id, n) => caller.post(`/v1/handles/${id}/waitid`, {}, `wait-${n}`));

  // Meanwhile others come and go without a pause.
  let done = false;
  const coming = Array.from({ length: 8 }, async (_, worker) => {
    for (let n = 0; !done; n += 1) {
      const id = await spawn(['sh', '-c', `exit ${n % 256}`], `short-${worker}-${n}`);
      const { status, body } = await caller.post(`/v1/handles/${id}/waitid`, {}, `short-wait-${worker}-${n}`);
      if (status !== 200 || body.outcome.exitCode !== n % 256) t.fail(JSON.stringify(body));
    }
  });
  for (let n = 0; n < UPGRADES; n += 1) {
    const before = ids.length;
    await daemon.upgrade();
    await eventually(() => ids.length > before + 20);
    t.equal(daemon.pid, pid);
  }
  done = true;
  await Promise.all(coming);
  t.equal(childrenOf(pid).length, CHILDREN, 'all of them are still its own');
  for (const id of lasting) {
    const { relation, state } = (await caller.get(`/v1/handles/${id}`)).body;
    if (relation !== 'child' || state !== 'running') t.fail(`${id} is ${relation} and ${state}`);
  }
  await Promise.all(lasting.map((id) => caller.post(`/v1/handles/${id}/signal`, { signal: 'SIGKILL' })));
  for (const answer of await Promise.all(parked)) t.match(answer.body, { outcome: { signal: 'SIGKILL' } });
  await caller.post('/v1/poll', { handles: lasting, until: 'all' });

  const last = await caller.lastSeq();
  await eventually(() => listeners.every(({ seqs }) => seqs.at(-1) === last));
  const told = Array.from({ length: last }, (_, at) => at + 1);
  t.ok(
    listeners.every(({ seqs }) => seqs.length === told.length && seqs.every((seq, at) => seq === told[at])),
    `each of ${last} events once, in order, to each of ${SUBSCRIBERS}`,
  );
  t.ok(listeners.every(({ codes }) => codes.length > 0 && codes.every((code) => code === 1012)));
  t.equal(last, 2 * ids.length, 'opened and exited of each');
  let unknown = 0;
  for await (const { event, ...facts } of caller.events())
    if (event === 'exited' && (facts as unknown as { outcome: { reason: string } }).outcome.reason === 'unknown')
      unknown += 1;
  t.equal(unknown, 0);
  for (const listener of listeners) listener.end();
  caller.close();
  t.same(daemon.zombies, []);
  t.equal(await daemon.stop(), 0);
});
