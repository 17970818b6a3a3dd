/**
 * A client that does not mind when the daemon dies or is replaced under it: it asks again, with the same key, and resumes its
 * subscription where it was. Started with a socket's path and a file that its programs leave traces in; told to stop, it finishes
 * what is under way and reports.
 */
import { setTimeout } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { type Answer, Caller } from './caller.ts';

const WORKERS = 16;

/** What the client learnt of one program. Times in Unix milliseconds. */
export interface Learnt {
  token: string;
  id: string;
  expected: object;
  outcome: { reason: string };
  /** Whether its status was collected, and once only. */
  collected: 'once' | 'twice' | 'not ours';
  relation: string;
  askedAt: number;
}

export interface Heard {
  seq: number;
  event: string;
  handle: string;
}

export interface Report {
  learnt: Learnt[];
  heard: Heard[];
  gaps: { from: number; to: number }[];
  connections: number;
  restarts: number;
}

const [, , socketPath = '', traces = ''] = process.argv;
const caller = new Caller(socketPath);
const learnt: Learnt[] = [];
const heard: Heard[] = [];
const gaps: Report['gaps'] = [];
let stopping = false;
let connections = 0;

const now = 'date +%s%3N';
const programs: ((token: string, code: number) => { script: string; expected: object })[] = [
  (token, code) => ({
    script: `echo ${token} start; echo ${token} end $(${now}); exit ${code}`,
    expected: { reason: 'exited', exitCode: code },
  }),
  (token, code) => ({
    script: `echo ${token} start; sleep 0.0${code % 10}; echo ${token} end $(${now}); exit ${code}`,
    expected: { reason: 'exited', exitCode: code },
  }),
  (token, code) => ({
    script: `echo ${token} start; sleep 0.${code % 10}; echo ${token} end $(${now}); exit ${code}`,
    expected: { reason: 'exited', exitCode: code },
  }),
  (token) => ({
    script: `echo ${token} start; echo ${token} end $(${now}); kill -KILL $$`,
    expected: { reason: 'killed', signal: 'SIGKILL' },
  }),
];

async function live(token: string, n: number): Promise<void> {
  const { script, expected } = programs[n % programs.length]!(token, n % 256);
  const askedAt = Date.now();
  const stdout = { file: traces, append: true };
  const stderr = n % 3 === 0 ? 'capture' : 'null';
  const body = { spawn: { argv: ['sh', '-c', script], stdout, stderr }, nonblocking: n % 5 === 0 };
  const spawned = await caller.post('/v1/handles', body, token);
  if (spawned.status !== 201) throw new Error(`spawn: ${spawned.text}`);
  const { id } = spawned.body;
  const outcome = await outcomeOf(id, token);
  const again = await caller.post(`/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOHANG'] });
  const { relation } = (await caller.get(`/v1/handles/${id}`)).body;
  const collected = outcome.own ? (again.status === 410 ? 'once' : 'twice') : 'not ours';
  learnt.push({ token, id, expected, outcome: outcome.value, collected, relation, askedAt });
  if (n % 2 === 0) await caller.request('DELETE', `/v1/handles/${id}`);
}

/** By waiting for it, be it ours to collect or not. */
async function outcomeOf(id: string, token: string): Promise<{ value: { reason: string }; own: boolean }> {
  for (;;) {
    await caller.post('/v1/poll', { handles: [id], for: 'outcome', timeoutMs: 2000 });
    const answer: Answer = await caller.post(`/v1/handles/${id}/waitid`, { options: ['WEXITED'] }, `${token}-wait`);
    if (answer.status === 200) return { value: answer.body.outcome, own: true };
    if (answer.status === 409) continue;
    const { outcome } = (await caller.get(`/v1/handles/${id}`)).body;
    if (outcome !== null) return { value: outcome, own: false };
  }
}

async function work(worker: number): Promise<void> {
  for (let n = 0; !stopping; n += 1) await live(`t${worker}-${n}`, worker * 7 + n);
}

/** Follows all events for as long as it takes, each from where the last connection ended. */
async function listen(until: () => boolean): Promise<void> {
  while (!until()) {
    const since = heard.at(-1)?.seq ?? 0;
    await new Promise<void>((resolve) => {
      const socket = new WebSocket(`ws+unix:${socketPath}:/v1/events?since=${since}`, ['waitd.v1']);
      connections += 1;
      const look = setInterval(() => until() && socket.terminate(), 20);
      socket.on('message', (data) => {
        const frame = JSON.parse(String(data));
        if (frame.type === 'event') heard.push({ seq: frame.seq, event: frame.event, handle: frame.handle });
        if (frame.type === 'gap') gaps.push(frame);
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        clearInterval(look);
        resolve();
      });
    });
    await setTimeout(5);
  }
}

process.on('message', () => {
  stopping = true;
});

let last = Number.POSITIVE_INFINITY;
const listening = listen(() => (heard.at(-1)?.seq ?? 0) >= last);
await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
for (const { id } of learnt) await caller.request('DELETE', `/v1/handles/${id}`);
last = await caller.lastSeq();
await listening;
const report: Report = { learnt, heard, gaps, connections, restarts: caller.failures };
process.send!(report, () => process.exit(0));
