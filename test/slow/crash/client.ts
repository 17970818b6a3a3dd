/**
 * A client that survives the death or replacement of its daemon: it repeats requests with the same key, and resumes its
 * subscription. Its arguments are a socket's path and the file that its programs write to. On request it finishes
 * pending work and reports.
 */
import { setTimeout } from 'node:timers/promises';
import { Caller } from '../../support/caller.ts';
import { type Gap, type Heard, Listener } from '../../support/listener.ts';
import { traced, uptime } from '../../support/traces.ts';

const WORKERS = 16;
/** Of processes with a timeout or a lease. */
const BOUNDED_WORKERS = 4;

/** The client's record of one program. Times are those of {@link uptime}. */
export interface Learnt {
  token: string;
  id: string;
  pid: number;
  expected: object;
  outcome: { reason: string };
  /** Whether this client, and no other, collected its status; `lost` if no known client received it. */
  collected: 'once' | 'twice' | 'not ours' | 'lost';
  relation: string;
  /** The times of the first spawn request and of its answer. */
  askedAt: number;
  answeredAt: number;
  /** The deadline that ends it. */
  deadline?: Deadline;
}

/** A time that runs from a moment between two others, in milliseconds. */
export interface Deadline {
  kind: 'timeout' | 'lease';
  ms: number;
  /** The last renewal of a lease, and its answer. */
  from: number;
  to: number;
}

export interface Report {
  learnt: Learnt[];
  heard: Heard[];
  gaps: Gap[];
  connections: number;
  askedAgain: Record<string, number>;
}

const [, , socketPath = '', traces = ''] = process.argv;
const caller = new Caller(socketPath);
const listener = new Listener(socketPath);
const learnt: Learnt[] = [];
let stopping = false;

const exits = (code: number): { ending: string; expected: object } => ({
  ending: `exit ${code}`,
  expected: { reason: 'exited', exitCode: code },
});
const programs: ((code: number) => { doing: string; ending: string; expected: object })[] = [
  (code) => ({ doing: ':', ...exits(code) }),
  (code) => ({ doing: `sleep 0.0${code % 10}`, ...exits(code) }),
  (code) => ({ doing: `sleep 0.${code % 10}`, ...exits(code) }),
  () => ({ doing: ':', ending: 'kill -KILL $$', expected: { reason: 'killed', signal: 'SIGKILL' } }),
];

const stdout = { file: traces, append: true };

async function spawn(body: object, token: string): Promise<{ id: string; askedAt: number; answeredAt: number }> {
  const askedAt = uptime();
  const spawned = await caller.post('/v1/handles', body, token);
  const answeredAt = uptime();
  if (spawned.status !== 201) throw new Error(`spawn: ${spawned.text}`);
  return { id: spawned.body.id, askedAt, answeredAt };
}

async function live(token: string, n: number): Promise<void> {
  const { doing, ending, expected } = programs[n % programs.length]!(n % 256);
  const stderr = n % 3 === 0 ? 'capture' : 'null';
  const body = {
    spawn: { argv: ['sh', '-c', traced(token, doing, ending)], stdout, stderr },
    nonblocking: n % 5 === 0,
  };
  const { id, askedAt, answeredAt } = await spawn(body, token);
  const own = await collect(id, token, n);
  const again = await caller.post(`/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOHANG'] });
  const { outcome, relation, process, collected: isCollected } = (await caller.get(`/v1/handles/${id}`)).body;
  const collected = own ? (again.status === 410 ? 'once' : 'twice') : isCollected ? 'lost' : 'not ours';
  learnt.push({ token, id, pid: process.pid, expected, outcome, collected, relation, askedAt, answeredAt });
  if (n % 2 === 0) await close(id);
}

const LEASE_MS = 2500;
const RENEWALS = 6;
const RENEWAL_MS = 250;

/** Runs a program that only a deadline ends. It handles SIGTERM, so that its trace has the time. */
async function outlive(token: string, n: number, isLease: boolean): Promise<void> {
  const argv = ['sh', '-c', traced(token, 'trap : TERM; sleep 100000 & wait', 'exit 9')];
  const ms = isLease ? LEASE_MS : 100 + ((n * 377) % 3000);
  const bound = isLease ? { lease: { ttlMs: ms, graceMs: 100_000 } } : { timeout: { afterMs: ms, graceMs: 100_000 } };
  const { id, askedAt, answeredAt } = await spawn({ spawn: { argv, stdout, ...bound } }, token);
  const deadline: Deadline = { kind: isLease ? 'lease' : 'timeout', ms, from: askedAt, to: answeredAt };
  for (let count = 0; isLease && count < RENEWALS; count += 1) {
    await setTimeout(RENEWAL_MS);
    deadline.from = uptime();
    const { status, text } = await caller.post(`/v1/handles/${id}/lease`, undefined);
    if (status !== 200) throw new Error(`lease: ${text}`);
    deadline.to = uptime();
  }
  const own = await collect(id, token, 0);
  const { outcome, relation, process, collected: isCollected } = (await caller.get(`/v1/handles/${id}`)).body;
  const collected = own ? 'once' : isCollected ? 'lost' : 'not ours';
  const mark = isLease ? { leaseExpired: true } : { timedOut: true };
  const expected = { reason: 'exited', exitCode: 9, ...mark };
  learnt.push({ token, id, pid: process.pid, expected, outcome, collected, relation, askedAt, answeredAt, deadline });
}

/**
 * Waits for the exit: parked, parked repeatedly for short times, or only after poll reports it.
 * @returns whether this client collected the status
 */
async function collect(id: string, token: string, n: number): Promise<boolean> {
  const poll = () => caller.post('/v1/poll', { handles: [id], for: 'outcome', timeoutMs: 2000 });
  const request = n % 7 < 2 ? { timeoutMs: 50 } : {};
  if (n % 7 > 4) await poll();
  for (;;) {
    const { status, body, text } = await caller.post(`/v1/handles/${id}/waitid`, request, `${token}-wait`);
    if (status === 200 && body.siginfo !== null) return true;
    if (status === 200 || status === 409) await poll();
    else if (status !== 410) throw new Error(`waitid: ${text}`);
    else break;
  }
  while ((await poll()).body.ready.length === 0);
  return false;
}

async function close(id: string): Promise<void> {
  const { status, text } = await caller.request('DELETE', `/v1/handles/${id}`);
  // Already closed, if only the answer was lost.
  if (status !== 204 && status !== 410) throw new Error(`close: ${text}`);
}

async function work(worker: number): Promise<void> {
  for (let n = 0; !stopping; n += 1) await live(`t${worker}-${n}`, worker * 7 + n);
}

process.on('message', () => {
  stopping = true;
});

/** One worker has leases, which seldom expire, because each image of the daemon starts them anew. */
async function bound(worker: number): Promise<void> {
  for (let n = 0; !stopping; n += 1) await outlive(`b${worker}-${n}`, worker + n, worker === 0);
}

const bounded = Array.from({ length: BOUNDED_WORKERS }, (_, worker) => bound(worker));
await Promise.all([...Array.from({ length: WORKERS }, (_, worker) => work(worker)), ...bounded]);
for (const { id } of learnt) await close(id);
await listener.until(await caller.lastSeq());
listener.end();
caller.close();
const { heard, gaps, codes } = listener;
const { askedAgain } = caller;
const report: Report = { learnt, heard, gaps, connections: codes.length + 1, askedAgain };
process.send!(report, () => process.exit(0));
