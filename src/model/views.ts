import type { ProcessView } from '../../schemas/common.ts';
import type { Filled } from '../../schemas/filled.ts';
import type { HandleView } from '../../schemas/handles.ts';
import { boottimeMs } from '../kernel/clock.ts';
import type { Handle, Process, ProcessState } from './process.ts';

/** A process as clients see it. */
export function viewOfProcess({ pid, inode, startedAtText, shown }: Process): Filled<ProcessView> {
  const { argv, argvTruncated } = shown;
  return { pid, inode, startedAt: startedAtText, argv, argvTruncated };
}

/**
 * A handle as its client sees it.
 * @param state where it is more than the process itself knows (a foreign one's stop)
 * @param collected whether this client has collected the status
 */
export function viewOfHandle(handle: Handle, state: ProcessState, collected: boolean): Filled<HandleView> {
  const { process, description } = handle;
  return {
    id: handle.id,
    nonblocking: description.nonblocking,
    relation: process.relation,
    state,
    name: handle.name,
    labels: handle.labels,
    client: handle.client,
    process: viewOfProcess(process),
    outcome: process.ending?.outcome ?? null,
    rusage: process.ending?.rusage ?? null,
    collected,
    createdAt: new Date(handle.createdAt).toISOString(),
    seq: handle.seq,
    watch: handle.watch ?? undefined,
    timeout: process.lifetime?.timeout ?? undefined,
    lease: leaseOf(process),
    output: undefined,
  };
}

function leaseOf({ lifetime, leaseExpiresAt }: Process): HandleView['lease'] {
  if (!lifetime?.lease) return undefined;
  return { ...lifetime.lease, expiresAt: leaseExpiresAt === null ? undefined : timeOf(leaseExpiresAt) };
}

/** Returns a moment on CLOCK_BOOTTIME as a time of day. */
export function timeOf(at: number): string {
  return new Date(Date.now() - boottimeMs() + at).toISOString();
}
