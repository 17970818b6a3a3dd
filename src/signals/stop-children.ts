import type { ProcessTable } from '../processes/process-table.ts';
import type { Parking } from '../waits/parking.ts';
import type { Signals } from './signals.ts';
import { terminate } from './terminate.ts';

/**
 * Ends every child of the daemon on which somebody holds a handle, each as `terminate` does, all at once. Their ends are
 * written and told as any other.
 * @param graceMs milliseconds between SIGTERM and SIGKILL
 * @returns how many there were, once they have ended
 */
export async function stopChildren(
  { table, signals, parking }: { table: ProcessTable; signals: Signals; parking: Parking },
  graceMs: number,
): Promise<number> {
  const caller = { client: null, gone: new AbortController().signal };
  const handles = [...table.values()].flatMap(({ relation, ending, handles: [handle] }) =>
    relation === 'child' && ending === null && handle !== undefined ? [handle] : [],
  );
  await Promise.allSettled(handles.map((handle) => terminate(signals, parking, handle, graceMs, caller)));
  return handles.length;
}
