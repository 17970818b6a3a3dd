import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { readStat } from '../kernel/proc.ts';
import { askWaitid, P_ALL, type WaitEvent, WCONTINUED, WNOHANG, WSTOPPED } from '../kernel/waitid.ts';
import { outcomeOf } from '../model/outcome.ts';
import type { Process } from '../model/process.ts';
import type { HandlelessChildren } from './handleless-children.ts';
import type { ProcessTable } from './process-table.ts';

export interface StopsParts {
  table: ProcessTable;
  journal: Journal;
  feed: EventSink;
  children: HandlelessChildren;
}

/**
 * The stops and continues of children. A pidfd does not report them, and the kernel reports each once. So the daemon reads it once, and
 * keeps for every client what that client has not read.
 */
export class Stops {
  readonly #parts: StopsParts;

  constructor(parts: StopsParts) {
    this.#parts = parts;
  }

  /** Takes every stop and continue that the kernel holds. */
  drain(): void {
    const { table, journal, feed, children } = this.#parts;
    const batch = new Batch(journal);
    for (;;) {
      const event = askWaitid(P_ALL, 0, WSTOPPED | WCONTINUED | WNOHANG);
      if (event === null || typeof event === 'string') break;
      const { pid } = event.siginfo;
      if (children.keepsStopOf(pid)) children.keepStop(pid, event);
      else {
        const process = table.get(pid)!;
        if (process.ending === null) report(batch, process, event);
      }
    }
    batch.commit(feed);
  }

  /** Reports what a spawned child did before it had its first handle. */
  attach(process: Process): void {
    const { journal, feed, children } = this.#parts;
    const event = children.stopOf(process.pid);
    if (event === null) return;
    const batch = new Batch(journal);
    report(batch, process, event);
    batch.commit(feed);
  }

  /** Makes a foreign process the daemon's child, which it has become by the death of its parent. */
  adopt(process: Process): void {
    if (process.relation === 'child') return;
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    process.relation = 'child';
    // Its former parent may have read the stop that it is in; the kernel does not report that one again.
    if (readStat(process.pid)?.state === 'T') process.state = 'stopped';
    batch.change('adopted', process);
    batch.commit(feed);
    this.drain();
  }
}

function report(batch: Batch, process: Process, event: WaitEvent): void {
  if (process.relation === 'foreign') {
    process.relation = 'child';
    batch.change('adopted', process);
  }
  process.reportStop(event);
  const { siginfo, rusage } = event;
  const type = siginfo.code === 'CLD_CONTINUED' ? 'continued' : 'stopped';
  batch.change(type, process, { outcome: outcomeOf(siginfo), siginfo, rusage });
}
