import type { Filled } from '../../schemas/filled.ts';
import type { Poll, PollResult } from '../../schemas/waits.ts';
import type { Caller } from '../clients/caller.ts';
import { Problem } from '../errors/problem.ts';
import type { Handle, Process } from '../model/process.ts';
import type { Settlements } from '../settlement/settlements.ts';
import type { Parking } from './parking.ts';

export interface PollRequest {
  handles: readonly Handle[];
  /** `ended`: POLLIN. `outcome`: known how, POLLHUP for a foreign process. `settled`: {@link Process.isSettled}. */
  for: Poll['for'];
  until: Poll['until'];
  timeoutMs: number | undefined;
  caller: Caller;
  settlements: Settlements;
}

const isReadyFor: Record<Poll['for'], (process: Process) => boolean> = {
  ended: ({ ending }) => ending !== null,
  outcome: ({ ending }) => ending?.outcome != null,
  settled: (process) => process.isSettled,
};

/**
 * poll(2) over handles, of children and of foreign processes. Collects nothing.
 * @throws {Problem} EINVAL for a count that can never be reached, and for `settled` of a foreign process; ESHUTDOWN
 */
export async function poll(parking: Parking, request: PollRequest): Promise<PollResult | 'aborted'> {
  const { handles, timeoutMs, caller } = request;
  const wanted = request.until === 'any' ? 1 : request.until === 'all' ? handles.length : request.until;
  if (wanted > handles.length)
    throw new Problem(
      'EINVAL',
      `until is ${wanted}, but only ${handles.length} handles are given: lower until, or name more handles.`,
    );
  if (request.for === 'settled') handles.forEach(requireChild);
  const isReady = ({ process }: Handle): boolean => isReadyFor[request.for](process);
  const waiting = new Set(handles.filter((handle) => !isReady(handle)));
  const enough = (): boolean => handles.length - waiting.size >= wanted;
  // Every handle is checked once more for the answer, since others may have ended in the same wake.
  const answer = (timedOut: boolean): Filled<PollResult> => ({
    ready: handles.filter(isReady).map(readinessOf),
    pending: handles.filter((handle) => !isReady(handle)).map((handle) => handle.id),
    timedOut,
  });
  if (enough()) return answer(false);
  const looked =
    request.for === 'settled' ? [...waiting].map(({ process }) => request.settlements.lookInAdvance(process)) : [];
  // Each change checks its own handle only, so that n handles cost n checks and not n².
  const check = (changed: Handle): PollResult | null => {
    if (isReady(changed)) waiting.delete(changed);
    return enough() ? answer(false) : null;
  };
  const result = await parking.park([...waiting], check, { timeoutMs, caller });
  if (result !== 'timed out') return result;
  await Promise.all(looked); // so that a client can have the descendants found without waiting for the end
  return answer(true);
}

/**
 * Waits until the outcome of a process is known, or the time is over. It is no error if the daemon stops meanwhile or the quota of
 * parked waits is used up, because the caller is answered with the handle as it is then.
 * @param timeoutMs milliseconds
 */
export async function untilEnded(
  parking: Parking,
  handle: Handle,
  timeoutMs: number,
  caller: Caller,
): Promise<'answer' | 'aborted'> {
  const check = (): 'answer' | null => (handle.process.ending?.outcome == null ? null : 'answer');
  if (check() !== null) return 'answer';
  try {
    return (await parking.park([handle], check, { timeoutMs, caller })) === 'aborted' ? 'aborted' : 'answer';
  } catch (error) {
    if (error instanceof Problem && ['ESHUTDOWN', 'EDQUOT'].includes(error.errno)) return 'answer';
    throw error;
  }
}

function requireChild({ id, process }: Handle, index: number): void {
  if (process.relation === 'child') return;
  const detail = `Handle ${id} is on a foreign process, and the daemon learns what is left of its own children alone: poll for ended or outcome.`;
  const message = 'is on a foreign process';
  throw new Problem('EINVAL', detail, { handle: id, errors: [{ path: `/handles/${index}`, message }] });
}

function readinessOf({ id, process }: Handle): PollResult['ready'][number] {
  const revents: PollResult['ready'][number]['revents'] = process.ending?.reaped ? ['POLLIN', 'POLLHUP'] : ['POLLIN'];
  return { handle: id, revents, outcome: process.ending?.outcome ?? null };
}
