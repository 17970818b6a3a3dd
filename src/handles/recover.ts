import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Features } from '../kernel/features.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import { type Adoption, parentOf } from '../processes/adoption.ts';
import { Description } from '../processes/description.ts';
import type { Process } from '../processes/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import { Handle } from './handle.ts';
import type { Handles } from './handles.ts';

export interface RecoverParts {
  journal: Journal;
  table: ProcessTable;
  handles: Handles;
  adoption: Adoption;
  reaper: Reaper;
  feed: EventSink;
  features: Features;
}

/**
 * Takes up what an earlier daemon left: what still lives is found by boot id, pid and inode, and is foreign now, since its
 * parent has died; what ended while nobody looked gets the outcome `unknown`. Nothing vanishes silently.
 */
export function recover(parts: RecoverParts): void {
  const byProcess = Map.groupBy(parts.journal.unended(), ({ handle }) => handle.process);
  const lost = new Batch(parts.journal);
  for (const [process, held] of byProcess) {
    const open = held.map(({ handle }) => handle).filter((handle) => handle.gone === null);
    const fits = held.every(({ boot }) => boot === parts.journal.bootId);
    if (fits && open.length > 0 && takeUp(parts, process, open)) continue;
    endUnseen(lost, process, open, fits);
  }
  lost.commit(parts.feed);
}

/** @returns false where the process is not there any more */
function takeUp({ table, handles, adoption, features }: RecoverParts, process: Process, held: Handle[]): boolean {
  const descriptions = new Map<number, Description>();
  for (const { description } of held) {
    if (descriptions.has(description.id)) continue;
    const pidfd = reopen(process, features.inode);
    if (pidfd === null) break;
    pidfd.nonblocking = description.nonblocking;
    descriptions.set(description.id, new Description(description.id, process, pidfd, description.nonblocking));
  }
  const [first] = descriptions.values();
  if (first === undefined) return false;
  const parent = parentOf(process, first.pidfd!);
  process.relation = parent === globalThis.process.pid ? 'child' : 'foreign';
  table.add(process);
  for (const { id, client, description, labels, createdAt, seq } of held) {
    const live = descriptions.get(description.id);
    if (live !== undefined) handles.restore(new Handle({ id, client, description: live, labels, createdAt, seq }));
  }
  if (process.relation === 'foreign' && adoption.follow(process)) process.relation = 'child';
  return true;
}

/** Before 6.9 nothing but the start tells a process from a later one of its pid; to the hundredth of a second. */
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

function endUnseen(batch: Batch, process: Process, held: Handle[], sameBoot: boolean): void {
  const detail = sameBoot
    ? 'it ended while no daemon was there to see it'
    : 'the machine was started anew, and what ran before is gone';
  const outcome = process.ending?.outcome ?? { reason: 'unknown' as const, detail };
  const first = process.ending === null;
  process.end({
    outcome,
    siginfo: process.ending?.siginfo ?? null,
    rusage: process.ending?.rusage ?? null,
    reaped: true,
  });
  for (const handle of held) process.handles.add(handle);
  batch.change(first ? 'exited' : 'reaped', process, { outcome });
}
