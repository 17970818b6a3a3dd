import type { SignalScope } from '../kernel/pidfd.ts';
import type { Event } from '../model/event.ts';
import type { EndedBy, Handle, OpenDescription, Process } from '../model/process.ts';
import type { WatchFacts } from '../model/watch.ts';

/** An answer that is stored for requests with the same idempotency key. */
export interface StoredKey {
  client: string;
  key: string;
  /** Identifies the request. */
  fingerprint: string;
  /** The id of the handle or the watch that the key belongs to. */
  handle: string;
  /** `null` while the answer is not known: the daemon may have died before it answered. */
  answer: string | null;
}

/** A process that a watch does not act on any more. */
export interface Sighting {
  watch: string;
  pid: number;
  /** Distinguishes the process from others with the same pid. */
  key: string;
}

/** A pending SIGKILL. It identifies the process without a handle, because it may outlive all handles. */
export interface TerminationFacts {
  pid: number;
  /** Of pidfs; `null` before Linux 6.9. */
  inode: string | null;
  /** The start of the process in clock ticks since boot; `null` where it had already ended. */
  startTicks: number | null;
  /** The journal's number of the process. */
  process: number;
  scope: SignalScope;
  /** Milliseconds on CLOCK_BOOTTIME. */
  killAt: number;
}

/** A change of a watch. */
export type WatchChange =
  | { write: 'watch'; watch: WatchFacts }
  /** `handle` is the seq of the handle that the watch opened, `opened` the number of handles it has opened so far. */
  | ({ write: 'sighted'; handle?: number; opened?: number } & Sighting)
  | { write: 'unsighted'; watch: string; pid: number }
  | { write: 'unwatched'; watch: string }
  /** A watch that could not be written: removes it together with its idempotency key. */
  | { write: 'watch withdrawn'; watch: string };

/** A change of a pending termination. */
export type TerminationChange =
  | { write: 'termination'; termination: Readonly<TerminationFacts> }
  | { write: 'terminated'; pid: number };

/**
 * One change to write. The log stores the state that the named object has at the commit. The tables get the state that it has when the
 * change is applied, which may be later.
 */
export type Change =
  | { write: 'process'; process: Process }
  /** Removes a process that has ended after its last handle. */
  | { write: 'unheld end'; process: Process }
  | { write: 'handle'; handle: Handle }
  | { write: 'description'; description: OpenDescription }
  | { write: 'output'; description: OpenDescription }
  /** Replaces a handle by a tombstone; `last` is the seq of its last event. */
  | { write: 'tombstone'; handle: Handle; endedBy: EndedBy; last: number }
  /** A spawn that failed: removes its handle together with the idempotency key. */
  | { write: 'withdrawn'; handle: Handle }
  /** Gives a handle its seq, where it was written `before` its process was started. */
  | { write: 'placed'; handle: Handle; before: number }
  /** Nothing is left of a child: see {@link Process.isSettled}. */
  | { write: 'settled'; process: Process }
  | { write: 'collected'; process: Process; client: string }
  | { write: 'key'; key: StoredKey }
  | WatchChange
  | TerminationChange
  | { write: 'event'; event: Event };

/** Returns the changes that write an open handle to empty tables. */
export function changesOfHandle(handle: Handle): Change[] {
  return [
    { write: 'process', process: handle.process },
    { write: 'handle', handle },
  ];
}
