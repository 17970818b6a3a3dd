import { type Client, notAllowed } from '../clients/client.ts';
import { uidOf } from '../clients/policy.ts';
import { readStat, readUids } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';

/**
 * Requires that a client may open a process. What it reads by pid is about the process that the caller has opened only if that still
 * exists afterwards.
 * @throws {Problem} EPERM
 */
export function requireOpenable(client: Client, pid: number, table: ProcessTable): void {
  if (isOpenable(client, pid, table)) return;
  const { open } = client.rights;
  if (open === 'none') throw notAllowed('open processes');
  throw notAllowed(open === 'own' ? 'open a process that did not come of yours' : 'open another user’s process');
}

/** Returns whether a client may open a process, with the same caution. */
export function isOpenable({ name, rights: { open } }: Client, pid: number, table: ProcessTable): boolean {
  switch (open) {
    case 'any':
      return true;
    case 'none':
      return false;
    case 'own':
      return isOwn(name, pid, table);
    case 'uid':
      return isOfUser(uidOf(name), pid);
  }
}

/** Whether the client has a handle on the process, on an ancestor, or on the leader of the session of either. */
function isOwn(client: string, pid: number, table: ProcessTable): boolean {
  const holds = (candidate: number): boolean =>
    [...(table.get(candidate)?.handles ?? [])].some((handle) => handle.client === client);
  for (let at = pid; at > 1; ) {
    const stat = readStat(at);
    if (stat === null) return false;
    if (holds(at) || holds(stat.session)) return true;
    at = stat.parent;
  }
  return false;
}

/** Compares as kill(2) does: with the real and the saved uid. */
function isOfUser(uid: number | null, pid: number): boolean {
  const uids = readUids(pid);
  return uids !== null && (uids.real === uid || uids.saved === uid);
}
