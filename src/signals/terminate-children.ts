import type { ProcessTable } from '../processes/process-table.ts';
import type { Terminations } from './terminations.ts';

/** How long a stop of the daemon waits for killed processes after the grace, in milliseconds. */
const LAST_WAIT_MS = 1000;

/** The longest timer of Node.js. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Terminates every child of the daemon that has a handle, all at once. Their ends are written and reported as any other.
 * @param graceMs milliseconds between SIGTERM and SIGKILL
 * @returns how many children there were, and the pids of those that have not ended soon after the SIGKILL
 */
export async function terminateChildren(
  { table, terminations }: { table: ProcessTable; terminations: Terminations },
  graceMs: number,
): Promise<{ count: number; left: number[] }> {
  const caller = { client: null, abortSignal: AbortSignal.timeout(Math.min(graceMs + LAST_WAIT_MS, LONGEST_MS)) };
  const handles = [...table.values()].flatMap(({ relation, ending, handles: [handle] }) =>
    relation === 'child' && ending === null && handle !== undefined ? [handle] : [],
  );
  await Promise.allSettled(handles.map((handle) => terminations.terminate(handle, graceMs, caller)));
  const left = handles.map(({ process }) => process).filter(({ ending }) => ending === null);
  return { count: handles.length, left: left.map(({ pid }) => pid) };
}
