import type { Caller } from '../clients/caller.ts';
import { Problem } from '../errors/problem.ts';
import type { Journal } from '../journal/journal.ts';
import type { Handle } from '../model/process.ts';
import type { Outputs } from '../output/outputs.ts';
import type { Parking } from './parking.ts';

/** How long after the end of a process an answer waits for the end of its output, in milliseconds. */
export const OUTPUT_GRACE_MS = 250;

export interface OutputEndParts {
  journal: Journal;
  outputs: Outputs;
  parking: Parking;
}

/**
 * Waits until the captured output of an ended process has ended too, but only for a short time after the process. It is no error if the
 * quota of parked waits is used up, because the caller is answered with the output as it is then.
 * @param timeoutMs milliseconds
 * @returns `late` if processes can still write to it
 * @throws {Problem} ESHUTDOWN when the daemon stops
 */
export async function untilOutputEnded(
  { journal, outputs, parking }: OutputEndParts,
  handle: Handle,
  timeoutMs: number,
  caller: Caller,
): Promise<'ended' | 'late' | 'aborted'> {
  const { description, process } = handle;
  const check = (): 'ended' | null => (outputs.hasEnded(description) ? 'ended' : null);
  const since = journal.now() - (process.endedAt ?? 0);
  const left = Math.min(OUTPUT_GRACE_MS - since, timeoutMs);
  if (check() !== null) return 'ended';
  if (left <= 0) return 'late';
  const also = (again: () => void): (() => void) => {
    const ends = description.output.streams.map((stream) => outputs.follow(description.id, stream, again));
    return () => {
      for (const end of ends) end();
    };
  };
  try {
    const result = await parking.park([handle], check, { timeoutMs: left, caller, also });
    return result === 'timed out' ? 'late' : result;
  } catch (error) {
    if (error instanceof Problem && error.errno === 'EDQUOT') return 'late';
    throw error;
  }
}
