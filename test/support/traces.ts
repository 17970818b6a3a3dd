import { readFileSync } from 'node:fs';

/** What a program itself wrote down of its runs, whatever the daemon says of it. */
export interface Trace {
  /** One of each run. */
  pids: number[];
  /** Of the first run, see {@link uptime}. */
  startedAt: number;
  /** Right before the end; `null` where it has not come so far. */
  endedAt: number | null;
}

/** Milliseconds since the boot, to the hundredth of a second: the clock that a shell reads without another process. */
export function uptime(): number {
  return Math.round(Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000);
}

/** A time of the wall clock as {@link uptime} told it. */
export function uptimeAt(at: string): number {
  return uptime() - (Date.now() - Date.parse(at));
}

/** A shell script that leaves its traces on stdout, one line each, so that several may append to one file. */
export function traced(token: string, doing: string, ending: string): string {
  const clock = 'read -r up idle < /proc/uptime';
  return `${clock}; echo ${token} start $up $$; ${doing}; ${clock}; echo ${token} end $up; ${ending}`;
}

/** By token. */
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
