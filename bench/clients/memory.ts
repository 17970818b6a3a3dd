import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

const BETWEEN_MS = 100;
const READS = 20;
const LONGEST_MS = 30_000;
/** A hundredth of a percent of the daemon's memory. */
const STEADY_KIB = 16;

/** Node.js options of servers whose memory is read: they run as usual, but collect garbage on request. */
export const COLLECTABLE = ['--expose-gc', '--import', join(import.meta.dirname, '../collectable.ts')];

/**
 * Reads the resident memory of an idle process after a garbage collection, once it is stable: two seconds of readings
 * differ by next to nothing, or half a minute has passed. An idle process collects no garbage, so without a collection
 * the value depends on earlier work: the same handles took 0.2 KiB and 7 KiB each.
 * @param pid of a server that was started with {@link COLLECTABLE}
 * @returns the median of the readings, in KiB
 */
export async function settledMemory(pid: number): Promise<number> {
  process.kill(pid, 'SIGUSR2');
  const reads: number[] = [];
  for (let left = LONGEST_MS / BETWEEN_MS; left > 0; left -= 1) {
    reads.push(residentKiB(pid));
    const last = reads.slice(-READS);
    if (last.length === READS && Math.max(...last) - Math.min(...last) <= STEADY_KIB) break;
    await setTimeout(BETWEEN_MS);
  }
  return reads.slice(-READS).toSorted((a, b) => a - b)[READS / 2]!;
}

function residentKiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
}
