import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';

/** What a daemon takes, at one time. */
export interface Sample {
  /** Since the beginning, in seconds. */
  at: number;
  residentMiB: number;
  descriptors: number;
  journalMiB: number;
  /** Of the probes since the sample before. */
  p50Us: number;
  p99Us: number;
}

const MIB = 1024 * 1024;

/** What can be seen of it from outside: all but the latencies. */
export function lookAt(pid: number): Omit<Sample, 'at' | 'p50Us' | 'p99Us'> {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const files = readdirSync(`/proc/${pid}/fd`).map((fd) => behind(`/proc/${pid}/fd/${fd}`));
  const journal = new Set(files.filter((file) => /\/journal\.sqlite(-wal)?$/.test(file)));
  return {
    residentMiB: Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024,
    descriptors: files.length,
    journalMiB: [...journal].reduce((sum, file) => sum + statSync(file).size, 0) / MIB,
  };
}

/** @returns '' where it has been closed meanwhile */
function behind(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}
