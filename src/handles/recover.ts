import type { Cgroups } from '../cgroups/cgroups.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Features } from '../kernel/features.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import { Handle, OpenDescription, type Process } from '../model/process.ts';
import type { StopRecord } from '../model/stop-reports.ts';
import type { Outputs } from '../output/outputs.ts';
import { type Adoption, parentOf } from '../processes/adoption.ts';
import { type DescriptorStore, pidfdName } from '../processes/descriptor-store.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Handles } from './handles.ts';

export interface RecoverParts {
  journal: Journal;
  table: ProcessTable;
  handles: Handles;
  adoption: Adoption;
  reaper: Reaper;
  feed: EventSink;
  features: Features;
  /** The pidfds of an earlier image of this process, by the journal's number of the description. Used ones are taken out. */
  inherited: Map<number, Pidfd>;
  /** The pidfds that the service manager kept, by the journal's number of the process. Used ones are taken out. */
  stored: Map<number, Pidfd>;
  store: DescriptorStore | null;
  outputs: Outputs;
  cgroups: Cgroups;
  /** The stop reports of the earlier image, by the journal's number of the process. */
  pauses: ReadonlyMap<number, StopRecord>;
}

/**
 * Takes over the handles of an earlier daemon. Processes that it handed over go on as they were. Others that still live are found by
 * boot id, pid and inode, and are foreign now, because their parent has died. So are those of which the service manager kept a pidfd,
 * which tells how they ended. Any other that ended while no daemon ran gets the outcome `unknown`. No handle vanishes silently.
 */
export function recover(parts: RecoverParts): void {
  const { journal, feed } = parts;
  const byProcess = Map.groupBy(journal.queries.unended(), ({ handle }) => handle.process);
  const batch = new Batch(journal);
  for (const [process, found] of byProcess) {
    const held = found.map(({ handle }) => handle);
    const sameBoot = found.every(({ boot }) => boot === journal.bootId);
    if (held[0]!.seq < 0) finishSpawn(parts, batch, held[0]!, sameBoot);
    else if (!sameBoot || !takeUp(parts, process, held)) endUnseen(parts, batch, process, held, sameBoot);
  }
  batch.commit(feed);
  for (const process of byProcess.keys()) {
    const pauses = parts.pauses.get(process.id);
    if (pauses !== undefined) process.stops.restore(pauses);
  }
  // These are of handles that a damaged journal has lost.
  for (const pidfd of parts.inherited.values()) pidfd.close();
  parts.inherited.clear();
  for (const pidfd of parts.stored.values()) pidfd.close();
  parts.stored.clear();
}

/** @returns false if the process does not exist any more */
function takeUp(parts: RecoverParts, process: Process, held: readonly Handle[]): boolean {
  const { table, handles, adoption } = parts;
  const descriptions = new Map<number, OpenDescription>();
  for (const { description } of held) {
    const { id, nonblocking, output, input } = description;
    if (descriptions.has(id)) continue;
    const [sibling] = descriptions.values();
    const pidfd = take(parts.inherited, id) ?? kept(parts, process) ?? again(parts, process, sibling);
    if (pidfd === null) break;
    pidfd.nonblocking = nonblocking;
    descriptions.set(id, new OpenDescription(id, process, pidfd, nonblocking, output, input));
  }
  const [first] = descriptions.values();
  if (first === undefined) return false;
  const parent = parentOf(process, first.pidfd!);
  process.relation = parent === globalThis.process.pid ? 'child' : 'foreign';
  table.add(process);
  for (const handle of held) {
    const description = descriptions.get(handle.description.id);
    if (description !== undefined) handles.restore(new Handle({ ...handle, description }));
  }
  if (process.relation === 'foreign' && adoption.follow(process)) process.relation = 'child';
  return true;
}

function take<V>(from: Map<number, V>, key: number): V | undefined {
  const value = from.get(key);
  from.delete(key);
  return value;
}

/** Takes the pidfd that the service manager kept, if it is of this very process. */
function kept({ stored, store }: RecoverParts, process: Process): Pidfd | undefined {
  const pidfd = take(stored, process.id);
  if (pidfd === undefined || pidfd.inode === process.inode) return pidfd;
  pidfd.close();
  store?.remove(pidfdName(process.id)); // before another is stored under this number
  return undefined;
}

/**
 * Opens a description's pidfd again. Each is an open file description of its own, except on a reaped process, which cannot be opened
 * again: its descriptions share one.
 */
function again({ features }: RecoverParts, process: Process, sibling: OpenDescription | undefined): Pidfd | null {
  return reopen(process, features.inode) ?? sibling?.pidfd?.duplicate() ?? null;
}

/** Opens the process if it still is the one that was meant. Before 6.9 there is no inode to tell it by. */
function reopen(process: Process, hasInode: boolean): Pidfd | null {
  try {
    const pidfd = Pidfd.open(process.pid);
    if (hasInode ? pidfd.inode === process.inode : readStat(process.pid) !== null) return pidfd;
    pidfd.close();
  } catch (error) {
    if (!isErrno(error, 'ESRCH', 'ENOENT', 'EINVAL')) throw error;
  }
  return null;
}

/**
 * Finishes a spawn that the earlier daemon had written as intended, but not as done. If the process was released, it is the program
 * that was asked for; if not, it has ended with that daemon.
 */
function finishSpawn(parts: RecoverParts, batch: Batch, intended: Handle, sameBoot: boolean): void {
  const { process } = intended;
  const handle = new Handle({ ...intended, seq: parts.journal.head });
  batch.write({ write: 'placed', handle, before: intended.seq });
  batch.event('opened', handle);
  if (sameBoot && takeUp(parts, process, [handle])) return;
  endUnseen(parts, batch, process, [handle], sameBoot, 'the daemon died while it started this process, which ended');
}

/** @param what the beginning of the detail: which process ended while no daemon ran */
function endUnseen(
  { cgroups }: RecoverParts,
  batch: Batch,
  process: Process,
  held: readonly Handle[],
  sameBoot: boolean,
  what = 'it ended',
): void {
  const detail = sameBoot ? `${what} while no daemon ran` : 'the machine was restarted, which ended every process';
  const outcome = process.ending?.outcome ?? { reason: 'unknown' as const, detail };
  const first = process.ending === null;
  process.end({
    outcome,
    siginfo: process.ending?.siginfo ?? null,
    rusage: process.ending?.rusage ?? null,
    reaped: true,
  });
  for (const handle of held) process.handles.add(handle);
  const isChild = process.relation === 'child';
  // What it left on this boot is searched for as soon as the daemon serves.
  process.remains =
    isChild && sameBoot ? { cgroup: cgroups.has(process.id), strays: process.remains?.strays ?? [] } : null;
  batch.change(first ? 'exited' : 'reaped', process, process.ending!);
  if (process.isSettled) batch.change('settled', process, process.ending!);
}
