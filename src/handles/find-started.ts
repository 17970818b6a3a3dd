import { existsSync, readlinkSync, realpathSync } from 'node:fs';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { beganAt, type ProcStat, readAll, readArgv } from '../kernel/proc.ts';
import { HIDDEN } from './launch.ts';

/** How much later than it was written down a process may have begun: the fork follows at once. */
const LATEST_MS = 1000;

/** The kernel tells starts in hundredths of a second. */
const TOLERANCE_MS = 10;

/**
 * Looks for a process that an earlier daemon may have started in the moment in which it died. That daemon did one thing at a
 * time, so there is one such process at most: the leader of a session of its own, begun in that moment, held by nobody else,
 * that writes to the files of its captured output, or bears its command line.
 * @param intendedAt CLOCK_BOOTTIME of this boot, in milliseconds, from right before
 * @param files what is captured is written to
 * @param known pids that are accounted for
 * @returns a pidfd on it; `null` where there is none, or where it cannot be told which
 */
export function findStarted(
  argv: readonly string[],
  intendedAt: number,
  files: readonly string[],
  known: ReadonlySet<number>,
): Pidfd | null {
  const all = readAll();
  const heirs = heirsIn(all);
  const begun = [...all].filter(
    ([pid, stat]) => isCandidate(pid, stat, intendedAt) && heirs.has(stat.parent) && !known.has(pid),
  );
  // Only one process was ever given these files.
  const real = files.filter((file) => existsSync(file)).map((file) => realpathSync(file));
  const [proved] = begun.filter(([pid]) => real.some((file) => writesTo(pid, file)));
  if (proved !== undefined) return open(proved[0]);
  // A program that has gone on to another (sh -c 'exec …') is not known by its command line any more, and a process that is
  // only alike in its time may be anybody's.
  const [only, ...others] = begun.filter(([pid]) => isCommand(readArgv(pid), argv));
  return only === undefined || others.length > 0 ? null : open(only[0]);
}

function writesTo(pid: number, file: string): boolean {
  return [1, 2].some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === file;
    } catch {
      return false; // it has ended, or closed it
    }
  });
}

function isCandidate(pid: number, stat: ProcStat, intendedAt: number): boolean {
  const age = beganAt(stat) - intendedAt;
  return stat.session === pid && stat.group === pid && age >= -TOLERANCE_MS && age <= LATEST_MS;
}

/** To whom the dead daemon's children went: to a subreaper above it, and so above us, or to init (prctl(2)). */
function heirsIn(all: ReadonlyMap<number, ProcStat>): Set<number> {
  const heirs = new Set([1]);
  for (let at = process.ppid; at > 1; at = all.get(at)?.parent ?? 0) heirs.add(at);
  return heirs;
}

/** Of a script the kernel puts its interpreter in front, and its path for its name. */
function isCommand(found: readonly string[], wanted: readonly string[]): boolean {
  const [name, ...args] = found.slice(-wanted.length);
  return (
    found.length >= wanted.length &&
    (name === wanted[0] || name!.endsWith(`/${wanted[0]}`)) &&
    args.every((arg, at) => arg === wanted[at + 1] || wanted[at + 1] === HIDDEN)
  );
}

function open(pid: number): Pidfd | null {
  try {
    return Pidfd.open(pid);
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return null;
    throw error;
  }
}
