import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { boottimeMs } from './clock.ts';

/** What /proc/PID/stat says of a process. */
export interface ProcStat {
  /** One letter of proc(5): R, S, D, T (stopped), t, Z (zombie), X, I. */
  state: string;
  parent: number;
  group: number;
  session: number;
  /** Those that have ended and were not released yet included. */
  threads: number;
  /** PF_* of include/linux/sched.h. */
  flags: number;
  /** Clock ticks since boot. */
  startTicks: number;
}

// USER_HZ: 100 on every architecture we run on.
const TICKS_PER_SECOND = 100;

/** @returns `null` where there is no such process */
export function readStat(pid: number): ProcStat | null {
  const text = read(`/proc/${pid}/stat`);
  if (text === null) return null;
  // The second field, comm, is in parentheses and may hold anything, parentheses and spaces too: count from the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    state: fields[0]!,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    threads: Number(fields[17]),
    flags: Number(fields[6]),
    startTicks: Number(fields[19]),
  };
}

/** Whether a process has ended. A leader whose thread has ended reads Z as well while other threads of its process live. */
export function hasEnded({ state, threads }: ProcStat): boolean {
  return state === 'X' || (state === 'Z' && threads <= 1);
}

/** Of PF_EXITING and PF_SIGNALED: a process that is on its way out. */
const PF_ENDING = 0x0000_0404;
const SIGKILL_BIT = 1n << 8n;

/** Whether a process has ended, is exiting, or has a SIGKILL pending that it has not acted on yet. */
export function isDying(pid: number): boolean {
  const stat = readStat(pid);
  if (stat === null || hasEnded(stat) || (stat.flags & PF_ENDING) !== 0) return true;
  const pending = [...(read(`/proc/${pid}/status`) ?? '').matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)];
  return pending.some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n);
}

/** The name of a process, at most 15 bytes; `null` where there is none. */
export function readComm(pid: number): string | null {
  return read(`/proc/${pid}/comm`)?.trimEnd() ?? null;
}

/** The pid of the process that traces another one, `null` where none does. */
export function readTracer(pid: number): number | null {
  return Number(/^TracerPid:\s*(\d+)$/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? 0) || null;
}

const PF_KTHREAD = 0x0020_0000;

export function isKernelThread({ flags }: ProcStat): boolean {
  return (flags & PF_KTHREAD) !== 0;
}

/** When a process started, in Unix milliseconds, to a hundredth of a second. It is for show: it moves with the wall clock. */
export function startedAt(stat: ProcStat): number {
  return Math.round(Date.now() - boottimeMs() + (stat.startTicks * 1000) / TICKS_PER_SECOND);
}

/** The command line; empty for a zombie and for a kernel thread. */
export function readArgv(pid: number): string[] {
  const text = read(`/proc/${pid}/cmdline`) ?? '';
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

/** The path of a process's cgroup in the unified hierarchy, as seen from our cgroup namespace; `null` where it is in none. */
export function readCgroup(pid: number): string | null {
  return /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1] ?? null;
}

/** The path of a process's program, also where that has been removed since; `null` where we may not know. */
export function readExe(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    return null;
  }
}

/** The process that a thread belongs to, `null` where there is no such thread. */
export function threadGroupOf(tid: number): number | null {
  const line = /^Tgid:\s*(\d+)$/m.exec(read(`/proc/${tid}/status`) ?? '');
  return line === null ? null : Number(line[1]);
}

/** Whose a process is, `null` where there is none. */
export function readUids(pid: number): { real: number; saved: number } | null {
  const line = /^Uid:\s*(\d+)\s+\d+\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? '');
  return line === null ? null : { real: Number(line[1]), saved: Number(line[2]) };
}

/** Every pid that /proc shows. */
export function listPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Every process that /proc shows, with what its stat says. */
export function readAll(): Map<number, ProcStat> {
  const all = new Map<number, ProcStat>();
  for (const pid of listPids()) {
    const stat = readStat(pid);
    if (stat !== null) all.set(pid, stat);
  }
  return all;
}

/** The same, the latest started first: what has just been forked is looked at before it can fork and end. */
export function readNewestFirst(): [pid: number, stat: ProcStat][] {
  return listPids()
    .sort((a, b) => b - a)
    .flatMap((pid): [number, ProcStat][] => {
      const stat = readStat(pid);
      return stat === null ? [] : [[pid, stat]];
    });
}

/** The pids of this process's children, adopted ones included, the latest last; empty without CONFIG_PROC_CHILDREN. */
export function listChildren(): number[] {
  return readdirSync('/proc/self/task').flatMap((tid) =>
    (read(`/proc/self/task/${tid}/children`) ?? '').split(' ').filter(Boolean).map(Number),
  );
}

/** The id that the kernel drew at boot. A pid or a pidfs inode means nothing beyond it. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
