import koffi from 'koffi';
import { bind } from './libc.ts';

koffi.struct('passwd', {
  name: 'char *',
  password: 'char *',
  uid: 'uint32_t',
  gid: 'uint32_t',
  gecos: 'char *',
  directory: 'char *',
  shell: 'char *',
});
koffi.struct('group', { name: 'char *', password: 'char *', gid: 'uint32_t', members: 'void *' });

const getpwnam = bind('passwd *getpwnam(const char *name)') as unknown as (name: string) => unknown;
const getpwuid = bind('passwd *getpwuid(uint32_t uid)') as unknown as (uid: number) => unknown;
const getgrnam = bind('group *getgrnam(const char *name)') as unknown as (name: string) => unknown;
const getgrouplist = bind('int getgrouplist(const char *user, uint32_t group, void *groups, void *count)');

/** NGROUPS_MAX of the kernel (limits.h). */
const MOST_GROUPS = 65536;

/** An entry of the system's user database: /etc/passwd or a directory service (nsswitch.conf(5)). */
export interface User {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

/**
 * Looks up a user (getpwnam(3)).
 * @param user name or uid
 * @returns `null` if the user does not exist
 */
export function findUser(user: string | number): User | null {
  const found = typeof user === 'number' ? getpwuid(user) : getpwnam(user);
  if (found === null) return null;
  const { name, uid, gid, directory } = koffi.decode(found, 'passwd') as {
    name: string;
    uid: number;
    gid: number;
    directory: string;
  };
  return { name, uid, gid, home: directory };
}

/** Looks up the gid of a group by name (getgrnam(3)). @returns `null` if the group does not exist */
export function findGroup(name: string): number | null {
  const found = getgrnam(name);
  return found === null ? null : (koffi.decode(found, 'group') as { gid: number }).gid;
}

/** Returns the gids of a user's groups, the primary group first (getgrouplist(3)). */
export function groupsOf({ name, gid }: User): number[] {
  const groups = Buffer.alloc(4 * MOST_GROUPS);
  const count = Buffer.alloc(4);
  count.writeInt32LE(MOST_GROUPS);
  const found = getgrouplist(name, gid, groups, count);
  return Array.from({ length: Math.max(0, found) }, (_, at) => groups.readUInt32LE(4 * at));
}
