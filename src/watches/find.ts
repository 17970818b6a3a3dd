import type { Client } from '../clients/client.ts';
import { notAllowed } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import { isOpenable } from '../handles/openable.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { listPids, readArgv, readStat, startedAt } from '../kernel/proc.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import { Facts } from './facts.ts';
import { type Match, Matcher } from './matcher.ts';

/** How many candidates are told. */
const MOST_CANDIDATES = 100;

/**
 * The one process that is meant, among those that a client may open.
 * @param hasInode whether pidfds are pidfs inodes (6.9)
 * @returns its pid, and whether it still is the one
 * @throws {Problem} ESRCH where there is none, ENOTUNIQ with the candidates where there are several, EPERM for one who may open none
 */
export function findOne(
  client: Client,
  match: Match,
  table: ProcessTable,
  hasInode: boolean,
): { pid: number; still: () => boolean } {
  if (client.rights.open === 'none') throw notAllowed('open processes');
  const matcher = new Matcher(match);
  const found: Facts[] = [];
  let hidden = 0;
  for (const pid of listPids()) {
    const facts = Facts.of(pid);
    if (facts === null || !isOpenable(client, pid, table)) continue;
    if (matcher.fits(facts)) found.push(facts);
    else if (matcher.needsExe && facts.exe === null && matcher.fitsBut(facts)) hidden += 1;
  }
  const [one, ...others] = found;
  if (one === undefined) throw nobody(hidden);
  if (others.length > 0) throw several(found, hasInode);
  return { pid: one.pid, still: () => isStill(one, matcher) };
}

function isStill({ pid, key }: Facts, matcher: Matcher): boolean {
  const now = Facts.of(pid);
  return now?.key === key && matcher.fits(now);
}

function nobody(hidden: number): Problem {
  const programs = `${hidden} of the others hide${hidden === 1 ? 's its program' : ' their programs'} from the daemon`;
  return new Problem('ESRCH', `No process matches that you may open${hidden === 0 ? '' : `; ${programs}`}.`);
}

function several(found: readonly Facts[], hasInode: boolean): Problem {
  const candidates = found.slice(0, MOST_CANDIDATES).flatMap(({ pid }) => candidateOf(pid, hasInode) ?? []);
  const detail = `${found.length} processes match: open one of the candidates by its pid and inode, or say more.`;
  return new Problem('ENOTUNIQ', detail, { candidates });
}

function candidateOf(pid: number, hasInode: boolean): NonNullable<Problem['facts']['candidates']>[number] | null {
  const stat = readStat(pid);
  if (stat === null) return null;
  return {
    pid,
    inode: hasInode ? inodeOf(pid) : null,
    startedAt: new Date(startedAt(stat)).toISOString(),
    argv: readArgv(pid),
  };
}

function inodeOf(pid: number): string | null {
  try {
    using pidfd = Pidfd.open(pid);
    return pidfd.inode;
  } catch {
    return null; // it has just ended
  }
}
