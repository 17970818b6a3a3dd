import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

const BETWEEN_MS = 100;
const READS = 20;
const LONGEST_MS = 30_000;
/** A hundredth of a percent of what a daemon takes. */
const STEADY_KIB = 16;

/** What Node is told where memory is to be read: the server runs as ever, but it can be asked to collect its garbage. */
export const COLLECTABLE = ['--expose-gc', '--import', join(import.meta.dirname, '../collectable.ts')];

/**
 * The resident memory of a process that nobody asks for anything, after it has collected its garbage, when it has settled: when two
 * seconds of reading it differ by next to nothing, or half a minute is over. With the garbage, of which an idle process collects
 * none, it depends on what was done before: the same handles were seen to take 0.2 KiB and 7 KiB each.
 * @param pid of a server that was started with {@link COLLECTABLE}
 * @returns KiB, the median of what was read
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
