import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

const BETWEEN_MS = 100;
const READS = 20;
const LONGEST_MS = 30_000;
/** A hundredth of a percent of what a daemon takes. */
const STEADY_KIB = 16;

/**
 * The resident memory of a process that nobody asks for anything, when it has settled: when two seconds of reading it differ by
 * next to nothing, or half a minute is over. Nothing makes it collect its garbage: it runs as it is.
 * @returns KiB, the median of what was read
 */
export async function settledMemory(pid: number): Promise<number> {
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
