import type { Filled } from '../../schemas/filled.ts';
import type { Usage } from '../../schemas/usage.ts';
import { readCgroupUsage } from '../cgroups/cgroup-usage.ts';
import type { Cgroups } from '../cgroups/cgroups.ts';
import { Problem } from '../errors/problem.ts';
import { cpuTimes } from '../kernel/clock.ts';
import { countDescriptors, readMemory } from '../kernel/proc.ts';
import type { Handle } from '../model/process.ts';
import { ProcessIo } from './process-io.ts';

/** The most processes of a cgroup whose descriptors are counted: each takes a system call on the event loop. */
const MOST_COUNTED = 256;

/** Reads what running processes use. */
export class UsageReader {
  readonly #cgroups: Cgroups;
  readonly #io = new ProcessIo();

  constructor(cgroups: Cgroups) {
    this.#cgroups = cgroups;
  }

  /**
   * Reads what the process of a handle uses, or the cgroup of the handle if it has one. The caller holds the handle.
   * @throws {Problem} ESRCH if the process has ended
   */
  async read({ id, description, process }: Handle): Promise<Filled<Usage>> {
    const hasEnded = (): boolean => process.ending !== null || (description.pidfd?.hasEnded ?? true);
    if (hasEnded()) throw ended(id);
    const cgroup = this.#cgroups.pathIfThere(description.id);
    const usage = cgroup === null ? await this.#ofProcess(process.pid) : await ofCgroup(cgroup);
    // While the process lives no other can have its pid, so all of it was about this one.
    if (hasEnded()) throw ended(id);
    return usage;
  }

  async #ofProcess(pid: number): Promise<Filled<Usage>> {
    const io = await this.#ioOf(pid);
    return { cpu: cpuTimes(pid), ...readMemory(pid), descriptors: countDescriptors(pid), ...io, processes: 1 };
  }

  async #ioOf(pid: number): Promise<Pick<Usage, 'readBytes' | 'writeBytes'>> {
    const text = (await this.#io.read(pid)) ?? '';
    const numberOf = (name: string): number | null => {
      const value = new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1];
      return value === undefined ? null : Number(value);
    };
    return { readBytes: numberOf('read_bytes'), writeBytes: numberOf('write_bytes') };
  }
}

async function ofCgroup(directory: string): Promise<Filled<Usage>> {
  const { pids, ...usage } = await readCgroupUsage(directory);
  return { ...usage, descriptors: sumOfDescriptors(pids), processes: pids?.length ?? null };
}

function sumOfDescriptors(pids: readonly number[] | null): number | null {
  if (pids === null || pids.length > MOST_COUNTED) return null;
  // The pid of a process outside the daemon's pid namespace is 0.
  const counts = pids.map((pid) => (pid === 0 ? null : countDescriptors(pid)));
  return counts.reduce((sum, count) => (sum === null || count === null ? null : sum + count), 0);
}

function ended(id: string): Problem {
  const detail = 'The process has ended and uses nothing any more. Read the handle for its rusage.';
  return new Problem('ESRCH', detail, { handle: id });
}
