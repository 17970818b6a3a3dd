import { readFileSync } from 'node:fs';

/** A program's own record of its runs, independent of the daemon. */
export interface Trace {
  /** The pid of each run. */
  pids: number[];
  /** The start of the first run on the clock of {@link uptime}. */
  startedAt: number;
  /** The time right before the end; `null` if the program has not reached it. */
  endedAt: number | null;
}

/**
 * Returns the milliseconds since boot from /proc/uptime, exact to 10 ms. A shell can read this clock without another
 * process.
 */
export function uptime(): number {
  return Math.round(Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000);
}

/** Converts a time of the wall clock to the clock of {@link uptime}. */
export function uptimeAt(at: string): number {
  return uptime() - (Date.now() - Date.parse(at));
}

/** Returns a shell script that writes its record to stdout in single lines, so that several can append to one file. */
export function traced(token: string, doing: string, ending: string): string {
  const clock = 'read -r up idle < /proc/uptime';
  return `${clock}; echo ${token} start $up $$; ${doing}; ${clock}; echo ${token} end $up; ${ending}`;
}

/** Reads the records from a file, by token. */
export function tracesIn(file: string): Map<string, Trace> {
  const traces = new Map<string, Trace>();
  for (const line of readFileSync(file, 'utf8').trim().split('\n').filter(Boolean)) {
    const [token = '', what, up, pid] = line.split(' ');
    const at = Math.round(Number(up) * 1000);
    const trace = traces.get(token) ?? { pids: [], startedAt: at, endedAt: null };
    traces.set(token, trace);
    if (what === 'start') trace.pids.push(Number(pid));
    else trace.endedAt = at;
  }
  return traces;
}
