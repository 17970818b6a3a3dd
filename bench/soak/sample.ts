import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';

/** The daemon's resource use at one time. */
export interface Sample {
  /** Seconds since the start of the run. */
  at: number;
  residentMiB: number;
  descriptors: number;
  journalMiB: number;
  /** Latencies of the probes since the previous sample. */
  p50Us: number;
  p99Us: number;
}

const MIB = 1024 * 1024;

/** Reads everything except the latencies, from outside the process. */
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

/** @returns '' if the descriptor has been closed in the meantime */
function behind(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}
