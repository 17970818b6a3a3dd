/**
 * A malicious client in its own process: it runs several random attacks at a time until its time is over. Its arguments
 * are the socket's path, the token, the seed and the milliseconds; it reports the number of attacks of each kind.
 */
import { Agent, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { random } from '../../support/random.ts';

const [socketPath = '', token = '', seed = '0', time = '0'] = process.argv.slice(2);
const draw = random(Number(seed));
const until = performance.now() + Number(time);
const agent = new Agent({ keepAlive: true, maxSockets: 8 });
/** The number of concurrent attacks. */
const AT_ONCE = 6;

const upTo = (most: number): number => Math.floor(draw() * most);
const pick = <T>(list: readonly T[]): T => list[upTo(list.length)]!;
const times = <T>(count: number, make: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => make(at));

interface Sent {
  body?: string;
  headers?: Record<string, string>;
  /** Milliseconds until it disconnects. */
  leaveAfterMs?: number;
}

/** Returns the answer, cut after the first bytes; '' without an answer. */
function ask(method: string, path: string, { body, headers = {}, leaveAfterMs = 5000 }: Sent = {}): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const type =
    body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const asked = request(
    {
      socketPath,
      method,
      path,
      agent,
      headers: { authorization: `Bearer ${token}`, ...type, ...headers },
      signal: AbortSignal.timeout(leaveAfterMs),
    },
    (answer) => {
      let text = '';
      answer.on('data', (chunk: Buffer) => {
        if (text.length < 65536) text += chunk;
      });
      answer.on('error', () => resolve(text));
      answer.on('close', () => resolve(text));
    },
  );
  asked.on('error', () => resolve(''));
  asked.end(body);
  return promise;
}

const post = (path: string, body: unknown, sent: Sent = {}): Promise<string> =>
  ask('POST', path, { ...sent, body: JSON.stringify(body) });

async function spawn(spawn: object, sent?: Sent): Promise<string> {
  return /"id":"(h_[\w-]+)"/.exec(await post('/v1/handles', { spawn }, sent))?.[1] ?? 'h_none';
}

const end = (id: string): Promise<string> => ask('DELETE', `/v1/handles/${id}?signal=SIGKILL`);

/** Holds a handle on a process for a while. */
async function withHandle(spawned: object, attack: (id: string) => Promise<unknown>): Promise<void> {
  const id = await spawn(spawned);
  await attack(id);
  await end(id);
}

const head = (line: string, ...headers: string[]): string =>
  [`${line} HTTP/1.1`, 'host: localhost', `authorization: Bearer ${token}`, ...headers, '', ''].join('\r\n');

/** Holds a raw connection for a while. */
async function raw(text: string, { reads = true, forMs = 300 } = {}): Promise<void> {
  const socket: Socket = connect(socketPath);
  socket.on('error', () => {});
  if (reads) socket.resume();
  else socket.pause();
  socket.write(text);
  await Promise.race([setTimeout(forMs), new Promise((resolve) => socket.once('close', resolve))]);
  socket.destroy();
}

async function withSocket(query: string, attack: (socket: WebSocket) => Promise<unknown>): Promise<void> {
  await withSocketAt(`/v1/events${query}`, 'waitd.v1', attack);
}

async function attached(id: string, query: string, attack: (socket: WebSocket) => Promise<unknown>): Promise<void> {
  await withSocketAt(`/v1/handles/${id}/attach${query}`, 'waitd.attach.v1', attack);
}

async function withSocketAt(
  path: string,
  subprotocol: string,
  attack: (socket: WebSocket) => Promise<unknown>,
): Promise<void> {
  const socket = new WebSocket(`ws+unix:${socketPath}:${path}`, [subprotocol], {
    headers: { authorization: `Bearer ${token}` },
  });
  socket.on('error', () => {});
  const opened = await new Promise<boolean>((resolve) => {
    socket.once('open', () => resolve(true));
    socket.once('close', () => resolve(false));
    socket.once('unexpected-response', () => resolve(false));
  });
  if (opened) await attack(socket);
  socket.terminate();
}

const sleeping = { argv: ['sleep', '1000'] };
const deaf = { ...sleeping, stdin: 'pipe' };
const bytes = { 'content-type': 'application/octet-stream' };
const deep = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;

const attacks: Record<string, () => Promise<unknown>> = {
  'wrong bodies': () =>
    post('/v1/handles', {
      spawn: { argv: times(200_000, () => 1) },
      ...Object.fromEntries(times(1000, (at) => [`x${at}`, at])),
    }),
  'a body of the limit': () => post('/v1/handles', { spawn: { argv: ['true'], env: { A: 'x'.repeat(4_000_000) } } }),
  'a body over the limit': () => ask('POST', '/v1/handles', { body: 'x'.repeat(6_000_000) }),
  'a deeply nested body': () => ask('POST', '/v1/handles', { body: deep(1_000_000) }),
  'many labels': () =>
    post('/v1/handles', {
      spawn: { argv: ['true'] },
      labels: Object.fromEntries(times(20_000, (at) => [`l${at}`, 'x'])),
    }),
  'a flood of spawns': async () => {
    const ids = await Promise.all(times(50, () => spawn(pick([sleeping, { argv: ['true'] }, { argv: ['nosuch'] }]))));
    await Promise.all(ids.map(end));
  },
  'abandoned spawns': () => Promise.all(times(20, () => spawn(sleeping, { leaveAfterMs: 1 + upTo(20) }))),
  'a flood of output': () =>
    withHandle({ argv: ['yes'], stdout: 'capture', stderr: 'capture', nice: 19 }, () => setTimeout(300)),
  'large stdin': () => spawn({ argv: ['true'], stdin: { text: 'x'.repeat(3_000_000) } }),
  'followed output': () =>
    withHandle({ argv: ['yes'], stdout: 'capture', nice: 19 }, (id) =>
      Promise.all(
        times(20, () =>
          raw(head(`GET /v1/handles/${id}/stdout?follow=1`).repeat(1 + upTo(200)), { reads: draw() < 0.5 }),
        ),
      ),
    ),
  'writes that nobody reads': () =>
    withHandle(deaf, (id) =>
      Promise.all(
        times(50, () =>
          ask('POST', `/v1/handles/${id}/stdin`, {
            body: 'x'.repeat(upTo(200_000)),
            headers: bytes,
            leaveAfterMs: 10 + upTo(300),
          }),
        ),
      ),
    ),
  'endless writes': () =>
    withHandle(deaf, (id) =>
      Promise.all(
        times(10, () =>
          raw(`${head(`POST /v1/handles/${id}/stdin`, 'content-length: 1000000000')}${'x'.repeat(2_000_000)}`),
        ),
      ),
    ),
  'a flood of a terminal': () =>
    withHandle({ argv: ['yes'], tty: { rows: 24, cols: 80 }, nice: 19 }, async (id) => {
      await Promise.all(
        times(50, (at) => ask('PUT', `/v1/handles/${id}/tty`, { body: JSON.stringify({ rows: 1 + at, cols: 80 }) })),
      );
      await ask('POST', `/v1/handles/${id}/stdin`, { body: 'x'.repeat(100_000), headers: bytes, leaveAfterMs: 300 });
    }),
  'many terminals': async () => {
    const ids = await Promise.all(times(20, () => spawn({ ...sleeping, tty: { rows: 1, cols: 1 } })));
    await Promise.all(ids.map(end));
  },
  'attached sockets that do not read': () =>
    withHandle({ argv: ['yes'], stdout: 'capture', nice: 19 }, (id) =>
      Promise.all(
        times(10, () =>
          attached(id, '', async (socket) => {
            socket.pause();
            await setTimeout(300);
          }),
        ),
      ),
    ),
  'a flood of frames to an input': () =>
    withHandle(deaf, (id) =>
      attached(id, '', async (socket) => {
        for (let at = 0; at < 2000; at += 1) {
          socket.send(Buffer.alloc(1 + upTo(2000)));
          socket.send(pick(['{"type":"eof"', '{"type":"resize","rows":1,"cols":1}', 'x']));
        }
        await setTimeout(300);
      }),
    ),
  'parked waits': () =>
    withHandle(sleeping, (id) =>
      Promise.all(times(50, () => post(`/v1/handles/${id}/waitid`, {}, { leaveAfterMs: 10 + upTo(300) }))),
    ),
  'waits with one key': () =>
    withHandle(sleeping, (id) =>
      Promise.all(
        times(50, () =>
          post(`/v1/handles/${id}/waitid`, {}, { headers: { 'idempotency-key': 'k' }, leaveAfterMs: 10 + upTo(300) }),
        ),
      ),
    ),
  'long graces': () =>
    withHandle(sleeping, async (id) => {
      await post(`/v1/handles/${id}/signal`, { signal: 'SIGSTOP' });
      await Promise.all(
        times(50, () =>
          post(`/v1/handles/${id}/terminate`, { graceMs: 2 ** 31 - 1 }, { leaveAfterMs: 10 + upTo(100) }),
        ),
      );
    }),
  'polls of many handles': () => post('/v1/poll', { handles: times(10_000, (at) => `h_${at}`), timeoutMs: 1000 }),
  'subscribe frames': () =>
    withSocket('', async (socket) => {
      const id = await spawn({ argv: ['true'] });
      for (const type of times(2000, () => pick(['subscribe', 'unsubscribe', 'nonsense'])))
        socket.send(JSON.stringify({ type, handles: [id, ...times(upTo(20), (at) => `h_${at}`)] }));
      await setTimeout(300);
    }),
  'large frames': () =>
    withSocket('', async (socket) => {
      for (const size of [1000, 100_000, 1_000_000]) socket.send('x'.repeat(size));
      await setTimeout(100);
    }),
  'sockets that do not read': () =>
    withSocket('?since=0', async (socket) => {
      socket.pause();
      await setTimeout(500);
    }),
  matchers: () =>
    post('/v1/handles', {
      open: { match: { argv: `*${'a*'.repeat(1 + upTo(2000))}b*`, cgroup: `*${'/*'.repeat(upTo(2000))}` } },
    }),
  watches: async () => {
    const made = await Promise.all(
      times(20, () => post('/v1/watches', { match: { argv: `*${'a*'.repeat(100)}b` }, existing: true })),
    );
    for (const text of made) await ask('DELETE', `/v1/watches/${/"id":"(w_[\w-]+)"/.exec(text)?.[1] ?? 'w_none'}`);
  },
  'label filters': () => ask('GET', `/v1/handles?${times(upTo(400), (at) => `label=k${upTo(1000)}=${at}`).join('&')}`),
  'event pages': () =>
    Promise.all(
      times(20, () => ask('GET', `/v1/events?since=0&limit=1000&type=${pick(['opened', 'exited', 'closed'])}`)),
    ),
  'half-open connections': () =>
    Promise.all(times(100, () => raw(head('GET /v1/handles').slice(0, upTo(60)), { forMs: 100 + upTo(1000) }))),
  'half a body': () => raw(`${head('POST /v1/handles', 'content-type: application/json', 'content-length: 1000000')}{`),
  pipelining: () => raw(head('GET /v1/events?since=0&limit=1000').repeat(1000), { reads: draw() < 0.5 }),
  'pipelining behind a wait': () =>
    withHandle(sleeping, (id) =>
      raw(
        head(`POST /v1/handles/${id}/waitid`, 'content-length: 0') +
          `${head('POST /v1/handles', 'content-type: application/json', 'content-length: 500000')}${'x'.repeat(500_000)}`,
      ),
    ),
  'slow reading': () => raw(head('GET /v1/events?since=0&limit=1000').repeat(50), { reads: false, forMs: 1000 }),
  'event streams': () =>
    Promise.all(times(20, () => raw(head('GET /v1/events?since=0', 'accept: text/event-stream'), { reads: false }))),
  'abandoned upgrades': () =>
    Promise.all(
      times(50, () =>
        raw(
          head(
            'GET /v1/events',
            'connection: upgrade',
            'upgrade: websocket',
            'sec-websocket-version: 13',
            `sec-websocket-key: ${'a'.repeat(22)}==`,
          ),
          { forMs: upTo(50) },
        ),
      ),
    ),
  'wrong tokens': () =>
    Promise.all(
      times(50, () => ask('GET', '/v1/handles', { headers: { authorization: 'Bearer wrong-0123456789abcdef' } })),
    ),
  noise: () => raw(times(2000, () => String.fromCharCode(upTo(256))).join('')),
};

const made: Record<string, number> = {};

async function attack(): Promise<void> {
  while (performance.now() < until) {
    const name = pick(process.env.TENANT_ATTACK === undefined ? Object.keys(attacks) : [process.env.TENANT_ATTACK]);
    await attacks[name]!();
    made[name] = (made[name] ?? 0) + 1;
  }
}

await Promise.all(times(AT_ONCE, attack));
agent.destroy();
process.send?.(made, () => process.exit(0));
