import type { Client } from '../clients/client.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import type { Features } from '../kernel/features.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import { readArgv, readStat, startedAt } from '../kernel/proc.ts';
import { Handle, OpenDescription, Process } from '../model/process.ts';
import { type Adoption, parentOf } from '../processes/adoption.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { Admission } from './admission.ts';
import type { DescriptorPressure } from './descriptor-pressure.ts';
import type { HandleTable } from './handle-table.ts';
import { descriptorFlag, type OpenOptions } from './open-options.ts';
import { isThere, noProcess, openPid, requireInode } from './open-pid.ts';
import { requireOpenable } from './openable.ts';
import type { Spawner } from './spawner.ts';

/** The process that is to be opened. */
export interface OpenTarget {
  pid: number;
  /** Refuses a process that has taken over the pid of the one that was meant. */
  inode?: string | undefined;
  /** Returns whether the pid still is the process that was found. */
  still?: () => boolean;
}

export interface OpenerParts {
  journal: Journal;
  table: ProcessTable;
  handles: HandleTable;
  admission: Admission;
  pressure: DescriptorPressure;
  spawner: Spawner;
  adoption: Adoption;
  reaper: Reaper;
  feed: EventSink;
  features: Features;
  /** The pidfds of handles get lower numbers than this. */
  descriptors: number;
  close(handle: Handle): void;
}

/** The facts of a new handle. */
interface HoldFacts extends OpenOptions {
  client: string;
  description: OpenDescription;
  /** Whether the daemon holds its process for the first time. */
  isNewProcess: boolean;
}

/** Makes handles on processes that exist already: by open, and by dup. */
export class Opener {
  readonly #parts: OpenerParts;

  constructor(parts: OpenerParts) {
    this.#parts = parts;
  }

  /**
   * Opens a process that runs already. If the daemon is just starting it, it waits until that is done.
   * @throws {Problem} of {@link openNow}
   */
  async open(client: Client, target: OpenTarget, options: OpenOptions): Promise<Handle> {
    if (this.#parts.reaper.isReserved(target.pid)) await this.#parts.spawner.untilDone(target.pid);
    return this.openNow(client, target, options);
  }

  /**
   * Opens a process whose pid the reaper does not reserve.
   * @throws {Problem} ESRCH; EPERM, EDQUOT; EOPNOTSUPP for an inode before Linux 6.9; EMFILE
   */
  openNow(asking: Client, { pid, inode, still }: OpenTarget, options: OpenOptions): Handle {
    const { table, handles, reaper, adoption, features, journal, descriptors, admission, pressure } = this.#parts;
    const { name: client } = asking;
    admission.require('pidfd_open', asking);
    handles.names.require(client, options.name);
    const pidfd = pressure.relieve(() => openPid(pid, descriptorFlag(options, features), descriptors));
    let handle: Handle | null = null;
    try {
      const found = features.inode ? pidfd.inode : null;
      requireOpenable(asking, pid, table);
      // The facts behind that decision were read by pid. They are about this process only if it still exists.
      if (!isThere(pidfd)) throw noProcess(pid);
      if (inode !== undefined) requireInode(inode, found, pid);
      if (still?.() === false) throw noProcess(pid);
      reaper.lookAfterChildren(); // its exit or stop may still be pending in the kernel, and its pid may have been reused
      const known = table.get(pid);
      if (known?.relation === 'child') reaper.recordExit(known); // one wake takes a batch of exits, and this may be a later one
      if (known !== undefined && known.inode === found) {
        if (known.relation === 'child' && known.ending !== null) throw noProcess(pid);
        const description = this.#describe(known, pidfd, options.nonblocking);
        return this.#hold({ ...options, client, description, isNewProcess: false });
      }
      const stat = readStat(pid);
      const argv = readArgv(pid);
      if (stat === null || !isThere(pidfd)) throw noProcess(pid);
      const process = new Process({
        id: journal.takeNumber(),
        pid,
        inode: found,
        startedAt: startedAt(stat),
        argv,
        relation: 'foreign',
      });
      const description = this.#describe(process, pidfd, options.nonblocking);
      if (parentOf(process, pidfd) === globalThis.process.pid) {
        process.relation = 'child';
        if (stat.state === 'T') process.state = 'stopped';
      }
      handle = this.#hold({ ...options, client, description, isNewProcess: true });
      if (process.relation === 'foreign' && adoption.follow(process)) reaper.adopt(process);
      reaper.wake(); // so that a zombie is reported as ended from the first answer on
      return handle;
    } catch (error) {
      // A written handle owns the descriptor, and its client never learns its id.
      if (handle === null) pidfd.close();
      else this.#parts.close(handle);
      throw error;
    }
  }

  /**
   * Makes another handle on the same open file description, also after the end of the process.
   * @throws {Problem} of {@link HandleTable.get}; EDQUOT; ENOSPC
   */
  dup(asking: Client, id: string, options: Omit<OpenOptions, 'nonblocking'>): Handle {
    const { handles, admission } = this.#parts;
    const { description } = handles.get(asking, id, 'change');
    admission.require('dup', description.pidfd === null ? null : asking);
    handles.names.require(asking.name, options.name);
    const { nonblocking } = description;
    return this.#hold({ ...options, nonblocking, client: asking.name, description, isNewProcess: false });
  }

  #describe(process: Process, pidfd: Pidfd, nonblocking: boolean): OpenDescription {
    return new OpenDescription(this.#parts.journal.takeNumber(), process, pidfd, nonblocking);
  }

  /** Makes the handle, writes it, and sends its first events. Its `seq` is the cursor from before them. */
  #hold({ client, description, name, labels, claim, sighting, isNewProcess }: HoldFacts): Handle {
    const { journal, feed, table, handles } = this.#parts;
    const { process } = description;
    const id = handles.makeId(client);
    const seq = journal.head;
    const watch = sighting?.watch ?? null;
    const handle = new Handle({ id, client, description, name, labels, createdAt: Date.now(), seq, watch });
    const batch = new Batch(journal);
    batch.write({ write: 'process', process });
    batch.write({ write: 'handle', handle });
    if (claim !== undefined) batch.write({ write: 'key', key: claim.keep(id, null) });
    if (sighting !== undefined) batch.write({ write: 'sighted', ...sighting, handle: seq });
    batch.event('opened', handle);
    if (description.pidfd !== null) {
      if (isNewProcess) table.add(process);
      handles.add(handle);
    } else table.groups.count(process, 1);
    if (process.ending !== null) batch.event('exited', handle, process.ending);
    if (process.isSettled) batch.event('settled', handle, process.ending!);
    if (description.output.streams.length > 0 && description.output.ended)
      batch.event('output', handle, process.ending ?? {});
    batch.commit(feed);
    return handle;
  }
}
