import { readFileSync } from 'node:fs';
import type { Spawn } from '../../schemas/handles.ts';
import type { Resource } from '../../schemas/vocabulary.ts';
import { Problem } from '../errors/problem.ts';
import { type Bound, rlimOf } from '../kernel/limits.ts';
import { findGroup, findUser, groupsOf, type User } from '../kernel/users.ts';

/** As whom a program is to run, and within which bounds. */
export type ExecContext = Pick<Spawn, 'user' | 'group' | 'limits' | 'nice' | 'umask' | 'noNewPrivileges' | 'cgroup'>;

/** Whose ids a process is to have. */
export interface Identity {
  uid: number;
  gid: number;
  groups: number[];
  home: string;
}

/** Limits as prlimit(2) takes them. */
export type Limits = readonly (readonly [Resource, { soft: bigint; hard: bigint }])[];

/** What a request says of limits, one for both or each. */
export function limitsOf({ limits = {} }: ExecContext): Limits {
  return (Object.entries(limits) as [Resource, Bound | { soft: Bound; hard: Bound }][]).map(([resource, limit]) => {
    const { soft, hard } = typeof limit === 'object' ? limit : { soft: limit, hard: limit };
    return [resource, { soft: rlimOf(soft), hard: rlimOf(hard) }] as const;
  });
}

/**
 * @returns `null` where they are the daemon's own
 * @throws {Problem} ENOENT, 422, for one that is not there; EPERM where the daemon cannot become another
 */
export function identityOf({ user, group }: ExecContext): Identity | null {
  if (user === undefined && group === undefined) return null;
  const found = user === undefined ? null : wanted(user, group);
  const gid = group === undefined ? found!.gid : typeof group === 'number' ? group : gidOf(group);
  const uid = found?.uid ?? process.getuid!();
  if (uid === process.getuid!() && gid === process.getgid!()) return null;
  if (!mayBecomeOthers())
    throw new Problem(
      'EPERM',
      `Only a daemon with CAP_SETUID and CAP_SETGID starts programs as another ${user === undefined ? 'group' : 'user'}.`,
      {
        syscall: 'setuid',
      },
    );
  return {
    uid,
    gid,
    groups: found === null || found.name === '' ? [] : groupsOf({ ...found, gid }),
    home: found?.home ?? '/',
  };
}

function wanted(user: string | number, group: string | number | undefined): User {
  const found = findUser(user);
  if (found !== null) return found;
  // A number need not have an entry, but then nothing tells its group.
  if (typeof user === 'number' && group !== undefined) return { name: '', uid: user, gid: 0, home: '/' };
  const more = typeof user === 'number' ? ': give a group as well' : '';
  throw new Problem('ENOENT', `There is no user ${user} on this machine${more}.`, { syscall: 'getpwnam' });
}

function gidOf(group: string): number {
  const gid = findGroup(group);
  if (gid === null) throw new Problem('ENOENT', `There is no group ${group} on this machine.`, { syscall: 'getgrnam' });
  return gid;
}

const CAP_SETGID = 1n << 6n;
const CAP_SETUID = 1n << 7n;

function mayBecomeOthers(): boolean {
  const effective = BigInt(
    `0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`,
  );
  return (effective & CAP_SETGID) !== 0n && (effective & CAP_SETUID) !== 0n;
}
