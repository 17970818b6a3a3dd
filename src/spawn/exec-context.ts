import { readFileSync } from 'node:fs';
import type { Spawn } from '../../schemas/spawn.ts';
import type { Resource } from '../../schemas/vocabulary.ts';
import { Problem } from '../errors/problem.ts';
import { type Bound, rlimOf } from '../kernel/limits.ts';
import { findGroup, findUser, groupsOf, type User } from '../kernel/users.ts';

/** The user that a program runs as, and its bounds. */
export type ExecContext = Pick<Spawn, 'user' | 'group' | 'limits' | 'nice' | 'umask' | 'noNewPrivileges' | 'cgroup'>;

/** The ids that a process gets. */
export interface Identity {
  uid: number;
  gid: number;
  groups: number[];
  home: string;
}

/** Limits as prlimit(2) takes them. */
export type Limits = readonly (readonly [Resource, { soft: bigint; hard: bigint }])[];

/** Returns the limits of a request. A single value is both the soft and the hard limit. */
export function limitsOf({ limits = {} }: ExecContext): Limits {
  return (Object.entries(limits) as [Resource, Bound | { soft: Bound; hard: Bound }][]).map(([resource, limit]) => {
    const { soft, hard } = typeof limit === 'object' ? limit : { soft: limit, hard: limit };
    return [resource, { soft: rlimOf(soft), hard: rlimOf(hard) }] as const;
  });
}

/**
 * Returns the ids of the user and group that a request names.
 * @returns `null` if they are the daemon's own
 * @throws {Problem} ENOENT, 422, if the user or group does not exist; EPERM if the daemon cannot become another user
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
      `The daemon lacks CAP_SETUID and CAP_SETGID, so it cannot run a program as another ${user === undefined ? 'group' : 'user'}: leave it out.`,
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
  // A uid needs no entry in the user database, but without one its group is not known.
  if (typeof user === 'number' && group !== undefined) return { name: '', uid: user, gid: 0, home: '/' };
  const more = typeof user === 'number' ? ': give a group as well' : '';
  throw new Problem('ENOENT', `User ${user} does not exist on this machine${more}.`, { syscall: 'getpwnam' });
}

function gidOf(group: string): number {
  const gid = findGroup(group);
  if (gid === null)
    throw new Problem('ENOENT', `Group ${group} does not exist on this machine.`, { syscall: 'getgrnam' });
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
