/**
 * A client that survives the death or replacement of its daemon: it repeats requests with the same key, and resumes its
 * subscription. Its arguments are a socket's path and the file that its programs write to. On request it finishes
 * pending work and reports.
 */
import { Caller } from '../../support/caller.ts';
import { type Gap, type Heard, Listener } from '../../support/listener.ts';
import { traced, uptime } from '../../support/traces.ts';

const WORKERS = 16;

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

async function live(token: string, n: number): Promise<void> {
  const { doing, ending, expected } = programs[n % programs.length]!(n % 256);
  const stdout = { file: traces, append: true };
  const stderr = n % 3 === 0 ? 'capture' : 'null';
  const body = {
    spawn: { argv: ['sh', '-c', traced(token, doing, ending)], stdout, stderr },
    nonblocking: n % 5 === 0,
  };
  const askedAt = uptime();
  const spawned = await caller.post('/v1/handles', body, token);
  const answeredAt = uptime();
  if (spawned.status !== 201) throw new Error(`spawn: ${spawned.text}`);
  const { id } = spawned.body;
  const own = await collect(id, token, n);
  const again = await caller.post(`/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOHANG'] });
  const { outcome, relation, process, collected: isCollected } = (await caller.get(`/v1/handles/${id}`)).body;
  const collected = own ? (again.status === 410 ? 'once' : 'twice') : isCollected ? 'lost' : 'not ours';
  learnt.push({ token, id, pid: process.pid, expected, outcome, collected, relation, askedAt, answeredAt });
  if (n % 2 === 0) await close(id);
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

await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
for (const { id } of learnt) await close(id);
await listener.until(await caller.lastSeq());
listener.end();
caller.close();
const { heard, gaps, codes } = listener;
const { askedAgain } = caller;
const report: Report = { learnt, heard, gaps, connections: codes.length + 1, askedAgain };
process.send!(report, () => process.exit(0));
