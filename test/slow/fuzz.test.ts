import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { connect, type NetConnectOpts } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { childrenOf, Daemon, eventually, type Response, temporaryDirectory } from '../support/harness.ts';
import { Judge } from '../support/judge.ts';
import { type FuzzRequest, Generator, type IdChoice } from './fuzz/generate.ts';
import { frame, HANDSHAKE, rawRequests, wrongFrames } from './fuzz/raw.ts';

const RUNS = Number(process.env.FUZZ_RUNS ?? 20_000);
const SEED = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const ROUND = 500;
const AT_ONCE = 16;

/** The ids for requests. */
class Pool {
  readonly #ids: Record<IdChoice['id'], string[]> = {
    mine: [],
    ended: [],
    closed: [],
    watch: [],
    odd: ['h_nosuch', 'h_', '..', '%00', `h_${'A'.repeat(28)}`, 'x'.repeat(150), '__proto__'],
  };

  note(kind: 'mine' | 'ended' | 'closed' | 'watch', id: string): void {
    this.#ids[kind].push(id);
    if (this.#ids[kind].length > 200) this.#ids[kind].shift();
  }

  choose({ id, index }: IdChoice): string {
    const ids = this.#ids[id].length === 0 ? this.#ids.odd : this.#ids[id];
    return ids[index % ids.length]!;
  }

  forget(id: string): void {
    for (const kind of ['mine', 'ended', 'watch'] as const) {
      const at = this.#ids[kind].indexOf(id);
      if (at !== -1) this.#ids[kind].splice(at, 1);
    }
  }

  clear(): void {
    this.#ids.mine.length = 0;
    this.#ids.ended.length = 0;
    this.#ids.watch.length = 0;
  }
}

interface Scene {
  daemon: Daemon;
  judge: Judge;
  pool: Pool;
  /** The number of answers per route and status. */
  answered: Map<string, number>;
}

/** Routes that answer on an event, which may never occur: the caller disconnects after a while. */
const mayPark = /\/(waitid|terminate|poll|events|handles|stdout|stderr)(\?|$)/;
const PARKED_MS = 300;

/** Time limit of all other answers. */
const LATE_MS = 30_000;

async function send({ daemon, judge, pool, answered }: Scene, request: FuzzRequest): Promise<void> {
  const { route, method, headers, abortAfterMs } = request;
  const ofWatches = route?.path.startsWith('/v1/watches') === true;
  const ids = request.ids.map((choice) =>
    pool.choose(ofWatches && choice.id !== 'odd' ? { ...choice, id: 'watch' } : choice),
  );
  const fill = (text: string): string => text.replace(/ID([0-3])/g, (_, at) => ids[Number(at)]!);
  const path = fill(request.path.replace('{id}', encodeURIComponent(ids[0]!)));
  const body = request.body === undefined ? undefined : fill(request.body);
  const gone = AbortSignal.timeout(abortAfterMs ?? (mayPark.test(path) ? PARKED_MS : LATE_MS));
  let answer: Response;
  try {
    answer = await daemon.request(method, path, {
      headers,
      ...(body !== undefined && { body }),
      signal: gone,
    });
  } catch (error) {
    if (gone.aborted && (abortAfterMs !== null || mayPark.test(path))) return;
    // The daemon breaks off an answer that follows a stream whose handle another request has closed.
    if (/[?&]follow=1\b/.test(path) && (error as Error).message === 'aborted') return;
    throw new Error(`${method} ${path} ${JSON.stringify(headers)} ${body}: ${error}`);
  }
  const name = `${route === null ? 'none' : `${method} ${route.path}`} ${answer.status}`;
  answered.set(name, (answered.get(name) ?? 0) + 1);
  const isFault = answer.status === 500 || answer.body?.errno === 'EIO';
  const fault = isFault ? 'a fault of the daemon' : route === null ? null : judge.answer(route, answer);
  if (fault !== null)
    throw new Error(
      `${method} ${path} ${JSON.stringify(headers)} ${body}\n${answer.status} ${answer.text}\n${fault}\n${daemon.log.filter((line) => line.includes('internal error')).join('\n')}`,
    );
  if (answer.status === 201)
    pool.note(ofWatches ? 'watch' : answer.body.state === 'exited' ? 'ended' : 'mine', answer.body.id);
  if (method === 'DELETE' && answer.status === 204) {
    pool.forget(ids[0]!);
    if (!ofWatches) pool.note('closed', ids[0]!);
  }
}

/** Checks that nothing is left behind. */
async function settle({ daemon, pool }: Scene, descriptors: number): Promise<void> {
  pool.clear();
  for (const { id } of (await daemon.get('/v1/watches')).body.watches)
    await daemon.request('DELETE', `/v1/watches/${id}`);
  for (;;) {
    const { handles } = (await daemon.get('/v1/handles?limit=1000')).body;
    if (handles.length === 0) break;
    await Promise.all(
      handles.map(({ id }: { id: string }) => daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`)),
    );
  }
  // Processes whose handles were closed live on.
  for (const pid of childrenOf(daemon.pid))
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  const metrics = async (): Promise<string> => (await daemon.get('/metrics')).text;
  await eventually(async () => /^waitd_parked_calls 0$/m.test(await metrics()));
  await eventually(async () => /^waitd_subscribers 0$/m.test(await metrics()));
  await eventually(() => childrenOf(daemon.pid).length === 0);
  await eventually(() => readdirSync(join(daemon.directory, 'state', 'output')).length === 0);
  daemon.disconnect();
  await eventually(() => daemon.descriptors <= descriptors);
}

async function begin(t: Test): Promise<{ scene: Scene; generator: Generator; descriptors: number }> {
  const directory = temporaryDirectory(t);
  const daemon = await Daemon.start(t);
  const seconds = `10000.${process.pid}`;
  const sleepers = Array.from({ length: 3 }, () => spawn('sleep', [seconds]));
  t.teardown(() => {
    for (const sleeper of sleepers) sleeper.kill('SIGKILL');
  });
  const judge = new Judge((await daemon.get('/openapi.json')).body);
  const generator = new Generator(judge, {
    directory,
    pids: sleepers.map(({ pid }) => pid!),
    argv: `sleep ${seconds}`,
  });
  const scene = { daemon, judge, pool: new Pool(), answered: new Map<string, number>() };
  await daemon.spawn(['true'], {}, { stdout: 'capture' });
  await settle(scene, Number.POSITIVE_INFINITY);
  return { scene, generator, descriptors: daemon.descriptors };
}

t.test(`${RUNS} valid and invalid requests, FUZZ_SEED=${SEED}`, async (t) => {
  const { scene, generator, descriptors } = await begin(t);
  const { daemon, pool } = scene;
  const requests = generator.requests();
  for (let done = 0; done < RUNS; done += ROUND) {
    const round = fc.sample(requests, { numRuns: Math.min(ROUND, RUNS - done), seed: SEED + done });
    // Some objects of each kind at the start.
    for (const nonblocking of [true, false]) {
      const output = { stdout: 'capture', stderr: 'capture' };
      const lease = { ttlMs: 3_600_000 };
      pool.note('mine', (await daemon.spawn(['sleep', '1000'], { nonblocking }, { ...output, lease })).id);
      for (const input of [{ stdin: 'pipe' }, { tty: { rows: 24, cols: 80 } }])
        pool.note('mine', (await daemon.spawn(['sleep', '1000'], { nonblocking }, input)).id);
      pool.note('ended', (await daemon.spawn(['sh', '-c', 'seq 20'], { nonblocking }, output)).id);
    }
    const waiting = [...round];
    const work = async (): Promise<void> => {
      for (let request = waiting.pop(); request !== undefined; request = waiting.pop()) await send(scene, request);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (done % (4 * ROUND) === 0) await settle(scene, descriptors);
    assert.equal(daemon.child.exitCode, null);
  }
  await settle(scene, descriptors);
  // Refusals alone would prove nothing, so each route must succeed; a short run has not covered them all. A path that is a WebSocket
  // alone can only ask for the upgrade.
  for (const { method, path } of RUNS < 10_000 ? [] : scene.judge.routes)
    t.ok(
      [200, 201, 204, ...(path.endsWith('/attach') ? [426] : [])].some((status) =>
        scene.answered.has(`${method} ${path} ${status}`),
      ),
      `${method} ${path} was answered`,
    );
  t.notOk(
    daemon.log.some((line) => line.includes('internal error')),
    'the log contains no error',
  );
  t.equal((await daemon.get('/livez')).status, 200);
});

/** Sends bytes and reads until the other end closes, or has sent a complete answer. */
function exchange(target: NetConnectOpts, bytes: Buffer, enough: (heard: Buffer) => boolean): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const socket = connect(target);
  let heard = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    heard = Buffer.concat([heard, data]);
    if (enough(heard)) socket.destroy();
  });
  socket.on('error', () => {}); // close follows an error
  socket.on('close', () => resolve(heard));
  socket.write(bytes);
  return promise;
}

t.test('raw bytes: every listener answers with HTTP or disconnects, and nothing is left', async (t) => {
  const { scene, descriptors } = await begin(t);
  const { daemon } = scene;
  const listeners: NetConnectOpts[] = [{ path: daemon.socket }, { host: '127.0.0.1', port: daemon.port }];
  for (const target of listeners)
    await Promise.all(
      rawRequests().map(async ([name, bytes]) => {
        // For an incomplete request the daemon waits ten seconds, and then disconnects.
        const heard = (
          await exchange(target, bytes, (text) => /^HTTP\/1\.1 \d{3} [^\r]*\r\n/.test(text.toString('latin1')))
        ).toString('latin1');
        t.ok(heard === '' || /^HTTP\/1\.1 [1-4]\d\d /.test(heard), `${name}: ${heard.slice(0, 60)}`);
      }),
    );
  await settle(scene, descriptors);
  t.equal((await daemon.get('/livez')).status, 200);
});

t.test('a client that disconnects at any byte of a request leaves nothing behind', async (t) => {
  const { scene, descriptors } = await begin(t);
  const { daemon } = scene;
  const body = '{"spawn":{"argv":["true"]}}';
  const text = `POST /v1/handles HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  await Promise.all(
    Array.from({ length: text.length }, async (_, at) => {
      const socket = connect({ path: daemon.socket });
      socket.on('error', () => {});
      await new Promise<void>((resolve) => socket.write(text.slice(0, at), () => resolve()));
      socket.destroy();
    }),
  );
  await settle(scene, descriptors);
  t.equal((await daemon.get('/livez')).status, 200);
});

t.test('invalid WebSocket frames get the right close code, or an error frame on an open socket', async (t) => {
  const { scene, descriptors } = await begin(t);
  const { daemon } = scene;
  for (const [name, bytes, codes] of wrongFrames()) {
    // A valid close follows frames that do not end the connection, so that each one ends.
    const last = codes === null ? frame({ first: 0x88, payload: Buffer.from([0x03, 0xe8]) }) : Buffer.alloc(0);
    const heard = await exchange(
      { path: daemon.socket },
      Buffer.concat([Buffer.from(HANDSHAKE), bytes, last]),
      () => false,
    );
    t.match(heard.toString('latin1'), /^HTTP\/1\.1 101 /, name);
    const code = closeCodeIn(heard);
    t.ok((codes ?? [1000]).includes(code), `${name}: ${code}`);
    if (codes === null && /^(binary|no JSON|an empty|JSON|a frame|fields|a prototype|deep|a since)/.test(name))
      t.match(heard.toString('latin1'), /"type":"error","errno":"EINVAL"/, name);
  }
  await settle(scene, descriptors);
  t.equal((await daemon.get('/livez')).status, 200);
});

/** Returns the code of the close frame in the server's bytes; 1005 for a frame without a code, 0 without a frame. */
function closeCodeIn(heard: Buffer): number {
  let at = heard.indexOf('\r\n\r\n') + 4;
  while (at + 2 <= heard.length) {
    const short = heard[at + 1]! & 0x7f;
    const length =
      short < 126 ? short : short === 126 ? heard.readUInt16BE(at + 2) : Number(heard.readBigUInt64BE(at + 2));
    const start = at + 2 + (short < 126 ? 0 : short === 126 ? 2 : 8);
    if ((heard[at]! & 0x0f) === 8) return length < 2 ? 1005 : heard.readUInt16BE(start);
    at = start + length;
  }
  return 0;
}
