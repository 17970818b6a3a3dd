import { type Client, notAllowed } from '../clients/client.ts';
import { uidOf } from '../clients/policy.ts';
import { readStat, readUids } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';

/**
 * Whether a client may open a process. What is read here by pid is of the process that the caller holds only if that one is
 * still there afterwards.
 * @throws {Problem} EPERM
 */
export function requireOpenable(client: Client, pid: number, table: ProcessTable): void {
  if (isOpenable(client, pid, table)) return;
  const { open } = client.rights;
  if (open === 'none') throw notAllowed('open processes');
  throw notAllowed(open === 'own' ? 'open a process that did not come of yours' : 'open another user’s process');
}

/** The same as an answer. */
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

/** Held by this client already, or come of a child that is: by parents, or by the session that it leads. */
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

/** As kill(2) has it: by the real or the saved uid. */
function isOfUser(uid: number | null, pid: number): boolean {
  const uids = readUids(pid);
  return uids !== null && (uids.real === uid || uids.saved === uid);
}
