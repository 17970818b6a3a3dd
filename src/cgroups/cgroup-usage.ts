import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../kernel/errno.ts';

/** The most cgroups below one whose processes are counted. A program to which it is delegated may make any number. */
const MOST_CGROUPS = 1000;

/** What the processes in a cgroup and in all cgroups below it use. A field is `null` without its controller. */
export interface CgroupUsage {
  cpu: { userUs: number; systemUs: number } | null;
  rssKiB: number | null;
  readBytes: number | null;
  writeBytes: number | null;
  threads: number | null;
  /** `null` if there are too many cgroups below it. */
  pids: number[] | null;
}

/** Reads the usage of a cgroup (admin-guide/cgroup-v2.rst). @param directory its path */
export async function readCgroupUsage(directory: string): Promise<CgroupUsage> {
  const cpu = numbersOf(await read(directory, 'cpu.stat'));
  const memory = numbersOf(await read(directory, 'memory.stat'));
  const io = await read(directory, 'io.stat');
  const tasks = await read(directory, 'pids.current');
  const members = await membersOf(directory);
  return {
    cpu: cpu && { userUs: cpu.user_usec ?? 0, systemUs: cpu.system_usec ?? 0 },
    // What is resident in a process: its anonymous pages, and the pages of files and shared memory that it maps.
    rssKiB: memory && ((memory.anon ?? 0) + (memory.file_mapped ?? 0)) / 1024,
    readBytes: io === null ? null : sumOf(io, 'rbytes'),
    writeBytes: io === null ? null : sumOf(io, 'wbytes'),
    threads: tasks === null ? (members?.threads ?? null) : Number(tasks),
    pids: members?.pids ?? null,
  };
}

/** Lists the processes of a cgroup and of those below it, and counts their threads. */
async function membersOf(root: string): Promise<{ pids: number[]; threads: number } | null> {
  const directories = [root];
  const pids: number[] = [];
  let threads = 0;
  for (const directory of directories) {
    for (const pid of linesOf(await read(directory, 'cgroup.procs'))) pids.push(Number(pid));
    threads += linesOf(await read(directory, 'cgroup.threads')).length;
    for (const entry of await readdir(directory, { withFileTypes: true }).catch(ifRemoved([])))
      if (entry.isDirectory()) directories.push(join(directory, entry.name));
    if (directories.length > MOST_CGROUPS) return null;
  }
  return { pids, threads };
}

/** Reads a file of a cgroup. @returns `null` without the controller, or if the cgroup has been removed */
function read(directory: string, name: string): Promise<string | null> {
  return readFile(join(directory, name), 'utf8').catch(ifRemoved(null));
}

/** A threaded cgroup does not list its processes: those above it do (EOPNOTSUPP). */
const ifRemoved =
  <T>(instead: T) =>
  (error: unknown): T => {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EOPNOTSUPP')) return instead;
    throw error;
  };

function linesOf(text: string | null): string[] {
  return (text ?? '').split('\n').filter(Boolean);
}

/** Parses lines of a name and a number. */
function numbersOf(text: string | null): Record<string, number | undefined> | null {
  if (text === null) return null;
  return Object.fromEntries(
    linesOf(text)
      .map((line) => line.split(' '))
      .map(([name, value]) => [name, Number(value)]),
  );
}

/** Adds up a number of all devices. */
function sumOf(text: string, name: string): number {
  const values = text.matchAll(new RegExp(`\\b${name}=(\\d+)`, 'g'));
  return [...values].reduce((sum, [, value]) => sum + Number(value), 0);
}
