import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { boottimeMs } from './clock.ts';

/** Fields of /proc/PID/stat (proc_pid_stat(5)). */
export interface ProcStat {
  /** One letter: R, S, D, T (stopped), t (traced), Z (zombie), X (dead), I (idle). */
  state: string;
  parent: number;
  group: number;
  session: number;
  /** The device number of its controlling terminal; 0 for none. */
  terminal: number;
  /** Includes threads that have ended but were not released yet. */
  threads: number;
  /** PF_* of include/linux/sched.h. */
  flags: number;
  /** Clock ticks since boot. */
  startTicks: number;
}

// USER_HZ is 100 on x64 and arm64.
const TICKS_PER_SECOND = 100;

/** Reads /proc/PID/stat. @returns `null` if the process does not exist */
export function readStat(pid: number): ProcStat | null {
  const text = read(`/proc/${pid}/stat`);
  if (text === null) return null;
  // The second field, comm, is in parentheses and may itself contain parentheses and spaces: parse from the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    state: fields[0]!,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    terminal: Number(fields[4]),
    threads: Number(fields[17]),
    flags: Number(fields[6]),
    startTicks: Number(fields[19]),
  };
}

/** Reports whether a process has ended. State Z alone is not enough: it also shows if only the main thread has ended. */
export function hasEnded({ state, threads }: ProcStat): boolean {
  return state === 'X' || (state === 'Z' && threads <= 1);
}

/** PF_EXITING and PF_SIGNALED (include/linux/sched.h): the process is exiting. */
const PF_ENDING = 0x0000_0404;
const SIGKILL_BIT = 1n << 8n;

/** Reports whether a process has ended, is exiting, or has a SIGKILL pending. */
export function isDying(pid: number): boolean {
  const stat = readStat(pid);
  if (stat === null || hasEnded(stat) || (stat.flags & PF_ENDING) !== 0) return true;
  const pending = [...(read(`/proc/${pid}/status`) ?? '').matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)];
  return pending.some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n);
}

/** Reports whether a process ignores a signal. */
export function ignoresSignal(pid: number, number: number): boolean {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? '0';
  return ((BigInt(`0x${mask}`) >> BigInt(number - 1)) & 1n) === 1n;
}

/** Reads the command name of a process, at most 15 bytes. @returns `null` if the process does not exist */
export function readComm(pid: number): string | null {
  return read(`/proc/${pid}/comm`)?.trimEnd() ?? null;
}

/** Returns the pid of the tracer of a process (ptrace(2)), or `null` if it is not traced. */
export function readTracer(pid: number): number | null {
  return Number(/^TracerPid:\s*(\d+)$/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? 0) || null;
}

const PF_KTHREAD = 0x0020_0000;

export function isKernelThread({ flags }: ProcStat): boolean {
  return (flags & PF_KTHREAD) !== 0;
}

/** Returns the start time of a process in milliseconds on CLOCK_BOOTTIME, exact to 10 ms. */
export function startMs({ startTicks }: ProcStat): number {
  return (startTicks * 1000) / TICKS_PER_SECOND;
}

/** Returns the start time of a process in Unix milliseconds, exact to 10 ms. For display only: it moves with the wall clock. */
export function startedAt(stat: ProcStat): number {
  return Math.round(Date.now() - boottimeMs() + startMs(stat));
}

/** Reads the command line of a process. Empty for a zombie, a kernel thread and a process that does not exist. */
export function readArgv(pid: number): string[] {
  const text = read(`/proc/${pid}/cmdline`) ?? '';
  return text === '' ? [] : text.replace(/\0$/, '').split('\0');
}

/** Returns the path of a process's cgroup (v2), relative to the daemon's cgroup namespace, or `null` if it has none. */
export function readCgroup(pid: number): string | null {
  return /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1] ?? null;
}

/** Returns the path of a process's executable, even if the file was deleted, or `null` if the daemon may not read it. */
export function readExe(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch {
    return null;
  }
}

/** Returns the pid of the process that a thread belongs to, or `null` if the thread does not exist. */
export function threadGroupOf(tid: number): number | null {
  const line = /^Tgid:\s*(\d+)$/m.exec(read(`/proc/${tid}/status`) ?? '');
  return line === null ? null : Number(line[1]);
}

/** Reads the resident memory in KiB and the number of threads of a process. `null` where the kernel does not tell. */
export function readMemory(pid: number): { rssKiB: number | null; threads: number | null } {
  const text = read(`/proc/${pid}/status`) ?? '';
  const numberOf = (name: string): number | null => {
    const value = new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(text)?.[1];
    return value === undefined ? null : Number(value);
  };
  return { rssKiB: numberOf('VmRSS'), threads: numberOf('Threads') };
}

/**
 * Counts the open descriptors of a process without listing them: the size of /proc/PID/fd (6.2).
 * @returns `null` on an older kernel, or if the process does not exist
 */
export function countDescriptors(pid: number): number | null {
  try {
    const { size } = statSync(`/proc/${pid}/fd`);
    if (size > 0) return size;
    // Those of a process whose main thread has ended are not shown. This process has some: a kernel that says 0 of it does not count.
    return readStat(pid)?.state === 'Z' || statSync('/proc/self/fd').size === 0 ? null : 0;
  } catch {
    return null;
  }
}

/** Returns the real and saved uid of a process, or `null` if the process does not exist. */
export function readUids(pid: number): { real: number; saved: number } | null {
  const line = /^Uid:\s*(\d+)\s+\d+\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? '');
  return line === null ? null : { real: Number(line[1]), saved: Number(line[2]) };
}

/** Lists every pid in /proc. */
export function listPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Reads the stat of every process in /proc. */
export function readAll(): Map<number, ProcStat> {
  const all = new Map<number, ProcStat>();
  for (const pid of listPids()) {
    const stat = readStat(pid);
    if (stat !== null) all.set(pid, stat);
  }
  return all;
}

/** Like {@link readAll}, highest pid first, to read a new process before it can fork and exit. */
export function readNewestFirst(): [pid: number, stat: ProcStat][] {
  return listPids()
    .sort((a, b) => b - a)
    .flatMap((pid): [number, ProcStat][] => {
      const stat = readStat(pid);
      return stat === null ? [] : [[pid, stat]];
    });
}

/** Lists the pids of this process's children, including adopted ones, newest last. Empty without CONFIG_PROC_CHILDREN. */
export function listChildren(): number[] {
  return readdirSync('/proc/self/task').flatMap((tid) =>
    (read(`/proc/self/task/${tid}/children`) ?? '').split(' ').filter(Boolean).map(Number),
  );
}

/** Returns the boot id. A pid or a pidfs inode is valid only with the boot id that it was recorded under. */
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
