import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { type Api, Unexpected } from './api.ts';

interface Handle {
  id: string;
  seq: number;
}

interface Ended {
  outcome: { reason: string; exitCode?: number; signal?: string } | null;
}

/** Time limit of operations that should finish soon. */
const SOON_MS = 20_000;

/** A process that outlives its scenario, and ends by itself. */
const LIVES_ON = ['sleep', '5'];

/** One scenario per kind of client operation. All started processes end by themselves within seconds. */
export const scenarios: Record<string, (api: Api) => Promise<void>> = {
  async collect(api) {
    const { id } = await spawn(api, ['sh', '-c', 'exit 7']);
    await collect(api, id, 'exited 7');
    await api.call(`POST /v1/handles/${id}/waitid`, 410);
  },

  async leaveUncollected(api) {
    await spawn(api, ['true']);
  },

  async parkedWait(api) {
    const { id } = await spawn(api, ['sleep', '0.3']);
    await collect(api, id, 'exited 0');
  },

  async droppedWait(api) {
    const { id } = await spawn(api, LIVES_ON);
    const dropped = api.call(`POST /v1/handles/${id}/waitid`, 200, { signal: AbortSignal.timeout(100) });
    const gone = await dropped.then(
      () => false,
      (error: Error) => error.name === 'AbortError' || error.name === 'TimeoutError',
    );
    if (!gone) throw new Unexpected('a dropped wait was answered');
    // The daemon reads the dropped request and the end of its connection before the third of these.
    for (let asked = 0; asked < 3; asked += 1) await api.call(`GET /v1/handles/${id}`, 200);
    await api.call(`POST /v1/handles/${id}/signal`, 204, { body: { signal: 'SIGTERM' } });
    await collect(api, id, 'killed SIGTERM');
  },

  async tryAgain(api) {
    const { id } = await spawn(api, LIVES_ON, { nonblocking: true });
    for (let asked = 0; asked < 20; asked += 1) await api.call(`POST /v1/handles/${id}/waitid`, 409);
    await api.call(`POST /v1/handles/${id}/signal`, 204, { body: { signal: 'SIGKILL' } });
    await api.call(`POST /v1/poll`, 200, { body: { handles: [id], timeoutMs: SOON_MS } });
    await collect(api, id, 'killed SIGKILL');
  },

  async pollAll(api) {
    const handles = await Promise.all([0, 0.1, 0.2].map((seconds) => spawn(api, ['sleep', `${seconds}`])));
    const ids = handles.map(({ id }) => id);
    const body = { handles: ids, until: 'all', timeoutMs: SOON_MS };
    const { timedOut } = await api.call<{ timedOut: boolean }>('POST /v1/poll', 200, { body });
    if (timedOut) throw new Unexpected('a poll timed out');
    for (const id of ids) await collect(api, id, 'exited 0');
  },

  async stopAndTerminate(api) {
    const { id } = await spawn(api, LIVES_ON);
    await api.call(`POST /v1/handles/${id}/signal`, 204, { body: { signal: 'SIGSTOP' } });
    const body = { options: ['WSTOPPED'], timeoutMs: SOON_MS };
    requireOutcome(await api.call(`POST /v1/handles/${id}/waitid`, 200, { body }), 'stopped SIGSTOP');
    const terminated = await api.call<Ended>(`POST /v1/handles/${id}/terminate`, 200, { body: { graceMs: 2000 } });
    requireOutcome(terminated, 'killed SIGTERM');
    await collect(api, id, 'killed SIGTERM');
  },

  async dupAndClose(api) {
    const { id } = await spawn(api, ['sleep', '0.2']);
    const other = await api.call<Handle>('POST /v1/handles', 201, { body: { dup: id } });
    await api.call(`PATCH /v1/handles/${other.id}`, 200, { body: { labels: { job: 'soak' } } });
    await api.call(`DELETE /v1/handles/${id}`, 204);
    await api.call(`GET /v1/handles/${id}`, 410);
    await collect(api, other.id, 'exited 0');
  },

  async capturedOutput(api) {
    const { id } = await spawn(
      api,
      ['sh', '-c', 'echo out; echo err >&2'],
      {},
      { stdout: 'capture', stderr: 'capture' },
    );
    const streams = await Promise.all(
      ['stdout', 'stderr'].map((stream) => api.call<string>(`GET /v1/handles/${id}/${stream}?follow=1`, 200)),
    );
    if (streams.join('') !== 'out\nerr\n') throw new Unexpected(`captured: ${streams}`);
    await collect(api, id, 'exited 0');
  },

  async sameKey(api) {
    const body = { spawn: { argv: ['true'] } };
    const headers = { 'idempotency-key': randomUUID() };
    const first = await api.call<Handle>('POST /v1/handles', 201, { body, headers });
    const second = await api.call<Handle>('POST /v1/handles', 201, { body, headers });
    if (first.id !== second.id) throw new Unexpected('one key started two processes');
    await collect(api, first.id, 'exited 0');
  },

  async subscribe(api) {
    const { id, seq } = await spawn(api, ['sleep', '0.2']);
    await exitedBySocket(api, `handle=${id}`);
    // A reader of past events receives it again.
    await exitedBySocket(api, `handle=${id}&since=${seq}`);
    await collect(api, id, 'exited 0');
  },

  async pagesOfHandles(api) {
    let cursor = '';
    for (let page = 0; page < 5; page += 1) {
      const { next } = await api.call<{ next: string | null }>(`GET /v1/handles?limit=100${cursor}`, 200);
      if (next === null) return;
      cursor = `&cursor=${next}`;
    }
  },

  async pageOfEvents(api) {
    const { head } = await api.call<{ head: number }>('GET /v1/node', 200);
    await api.call(`GET /v1/events?since=${Math.max(0, head - 100)}`, 200);
  },
};

function spawn(api: Api, argv: string[], more: object = {}, streams: object = {}): Promise<Handle> {
  return api.call('POST /v1/handles', 201, { body: { spawn: { argv, ...streams }, ...more } });
}

async function collect(api: Api, id: string, outcome: string): Promise<void> {
  requireOutcome(await api.call(`POST /v1/handles/${id}/waitid`, 200, { body: { timeoutMs: SOON_MS } }), outcome);
}

function requireOutcome({ outcome }: Ended, expected: string): void {
  const text = outcome === null ? 'none' : `${outcome.reason} ${outcome.exitCode ?? outcome.signal}`;
  if (text !== expected) throw new Unexpected(`the outcome is ${text}, not ${expected}`);
}

/** Subscribes until the exit has been received. */
async function exitedBySocket({ socket }: Api, query: string): Promise<void> {
  const webSocket = new WebSocket(`ws+unix:${socket}:/v1/events?${query}`, ['waitd.v1'], { perMessageDeflate: false });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  webSocket.on('message', (data) => {
    if (String(data).includes('"event":"exited"')) resolve();
  });
  webSocket.once('error', reject);
  webSocket.once('close', (code, reason) => reject(new Unexpected(`the socket closed with ${code} ${reason}`)));
  const late = new AbortController();
  const inTime = setTimeout(SOON_MS, undefined, { signal: late.signal }).then(
    () => reject(new Unexpected('no exit was told')),
    () => {},
  );
  try {
    await promise;
  } finally {
    late.abort();
    await inTime;
    webSocket.close();
  }
}
