import type { Rusage } from '../kernel/waitid.ts';
import type { Description } from '../processes/description.ts';
import type { Outcome } from '../processes/outcome.ts';
import type { Process, ProcessState, Relation } from '../processes/process.ts';

export type Labels = Readonly<Record<string, string>>;

/** How many labels a handle has at most. */
export const MOST_LABELS = 64;

/** How a handle ended; its id then answers ESTALE. */
export type Gone = 'closed' | 'expired';

export interface HandleFacts {
  id: string;
  client: string;
  description: Description;
  labels: Labels;
  /** Unix milliseconds. */
  createdAt: number;
  /** The event cursor from before its first event. */
  seq: number;
  /** The watch that opened it, if one has. */
  watch?: string | null;
}

/** One client's descriptor on one process. */
export class Handle {
  readonly id: string;
  readonly client: string;
  readonly description: Description;
  readonly createdAt: number;
  readonly seq: number;
  readonly watch: string | null;
  labels: Labels;

  constructor(facts: HandleFacts) {
    this.id = facts.id;
    this.client = facts.client;
    this.description = facts.description;
    this.labels = facts.labels;
    this.createdAt = facts.createdAt;
    this.seq = facts.seq;
    this.watch = facts.watch ?? null;
  }

  get process(): Process {
    return this.description.process;
  }
}

/** A process as clients see it. */
export interface ProcessView {
  pid: number;
  inode: string | null;
  startedAt: string;
  /** Of long ones the beginning, and then {@link argvTruncated} says so. */
  argv: readonly string[];
  argvTruncated?: true | undefined;
}

/** A handle as its client sees it. */
export interface HandleView {
  id: string;
  nonblocking: boolean;
  relation: Relation;
  state: ProcessState;
  labels: Labels;
  client: string;
  process: ProcessView;
  outcome: Outcome | null;
  rusage: Rusage | null;
  collected: boolean;
  createdAt: string;
  seq: number;
  watch?: string | undefined;
}

export function viewOfProcess({ pid, inode, startedAtText, shown }: Process): ProcessView {
  return { pid, inode, startedAt: startedAtText, ...shown };
}

/**
 * @param state where it is more than the process itself knows (a foreign one's stop)
 * @param collected whether this client has collected the status
 */
export function viewOfHandle(handle: Handle, state: ProcessState, collected: boolean): HandleView {
  const { process, description } = handle;
  return {
    id: handle.id,
    nonblocking: description.nonblocking,
    relation: process.relation,
    state,
    labels: handle.labels,
    client: handle.client,
    process: viewOfProcess(process),
    outcome: process.ending?.outcome ?? null,
    rusage: process.ending?.rusage ?? null,
    collected,
    createdAt: new Date(handle.createdAt).toISOString(),
    seq: handle.seq,
    ...(handle.watch !== null && { watch: handle.watch }),
  };
}
