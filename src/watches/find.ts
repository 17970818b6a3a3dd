import type { Match } from '../../schemas/match.ts';
import type { Client } from '../clients/client.ts';
import { notAllowed } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import { isOpenable } from '../handles/openable.ts';
import type { Features } from '../kernel/features.ts';
import { inTurns } from '../kernel/in-turns.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { listPids } from '../kernel/proc.ts';
import { Matcher } from '../model/matcher.ts';
import { shownArgv } from '../model/shown-argv.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import { Facts } from './facts.ts';

/** How many candidates a problem lists. */
const MOST_CANDIDATES = 100;

export interface FindParts {
  table: ProcessTable;
  reaper: Reaper;
  features: Features;
}

/**
 * Finds the one process that matches, among those that a client may open.
 * @returns its pid, and a function that tells whether the pid still is that process
 * @throws {Problem} ESRCH for no match, ENOTUNIQ with the candidates for several, EPERM for a client that may open no process
 */
export async function findOne(
  client: Client,
  match: Match,
  { table, reaper, features }: FindParts,
): Promise<{ pid: number; still: () => boolean }> {
  if (client.rights.open === 'none') throw notAllowed('open processes');
  const matcher = new Matcher(match);
  const found: Facts[] = [];
  let hidden = 0;
  for await (const pid of inTurns(listPids())) {
    if (reaper.isReserved(pid)) continue;
    const facts = Facts.of(pid, table);
    if (facts === null || !isOpenable(client, pid, table)) continue;
    if (matcher.fits(facts)) found.push(facts);
    else if (matcher.needsExe && facts.exe === null && matcher.fitsBut(facts)) hidden += 1;
  }
  const [one, ...others] = found;
  if (one === undefined) throw noMatch(hidden);
  if (others.length > 0) throw several(found, features.inode);
  return { pid: one.pid, still: () => isStill(one, matcher, table) };
}

function isStill({ pid, key }: Facts, matcher: Matcher, table: ProcessTable): boolean {
  const now = Facts.of(pid, table);
  return now?.key === key && matcher.fits(now);
}

function noMatch(hidden: number): Problem {
  const programs = `the daemon may not read the program of ${hidden} ${hidden === 1 ? 'other' : 'others'}`;
  return new Problem(
    'ESRCH',
    `No process matches among those that you may open${hidden === 0 ? '' : `; ${programs}`}.`,
  );
}

function several(found: readonly Facts[], hasInode: boolean): Problem {
  const candidates = found.slice(0, MOST_CANDIDATES).map((facts) => candidateOf(facts, hasInode));
  const detail = `${found.length} processes match: open one of the candidates by its pid and inode, or give a narrower matcher.`;
  return new Problem('ENOTUNIQ', detail, { candidates });
}

/** @param hasInode whether pidfds are pidfs inodes (6.9) */
function candidateOf(
  { pid, startedAt, argv }: Facts,
  hasInode: boolean,
): NonNullable<Problem['facts']['candidates']>[number] {
  return {
    pid,
    inode: hasInode ? inodeOf(pid) : null,
    startedAt: new Date(startedAt).toISOString(),
    ...shownArgv(argv),
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
