import type { Resource } from '../../schemas/vocabulary.ts';
import type { CgroupLimits } from '../cgroups/cgroups.ts';
import type { Bound } from '../kernel/limits.ts';

/** The processes that a client may open, beside those that it already holds. */
export const openScopes = ['none', 'own', 'uid', 'any'] as const;

/**
 * `own`: those that it holds, and their descendants. `uid`: those that kill(2) would let its user signal, by their real or saved uid.
 * `any`: all that the daemon can open.
 */
export type OpenScope = (typeof openScopes)[number];

/** The programs that a client may spawn, and how. Everything that is not listed is refused. */
export interface SpawnRule {
  /** Paths of programs, and of directories with a trailing slash, which stand for all programs below them. */
  programs: string[];
  /** User names or uids to run as, `*` for any. The first is the default. If empty, only the daemon's own user is allowed. */
  users: (string | number)[];
  /** Directories that may hold output files and working directories, at any depth. `/` itself is always allowed as working directory. */
  directories: string[];
  /** Names of environment variables that may be set. A trailing `*` matches any suffix. */
  environment: string[];
  /** The lowest nice value allowed. Values from the daemon's own upwards are always allowed. */
  nice?: { min: number } | undefined;
  /** The highest soft and hard limit allowed for each resource, beyond those inherited from the daemon. */
  limits: Partial<Record<Resource, Bound>>;
  /** The bits that every umask must include, octal. The default is the daemon's own umask. */
  umask?: string | undefined;
  /** The longest time in milliseconds that a process may live, its grace included. */
  maxLifetimeMs?: number | undefined;
  /** Whether a program may have its own cgroup, and the maximum of each limit. */
  cgroup: CgroupLimits | boolean;
}

/** The rights of a client. */
export interface Rights {
  open: OpenScope;
  /** `true` allows everything that the daemon itself can spawn. */
  spawn: SpawnRule | boolean;
  /** Signal and terminate the processes that it holds. */
  signal: boolean;
  /** Write to the input and the terminals of the processes that it holds. */
  input: boolean;
  /** Read every client's handles, events and output. */
  observe: boolean;
  /** Read and change every client's handles, events and output. */
  admin: boolean;
  /** Read the metrics, which cover all clients. */
  metrics: boolean;
}

/** The rights of every authenticated client without a policy: everything that the daemon can do, on its own handles. */
export const unlimited: Rights = {
  open: 'any',
  spawn: true,
  signal: true,
  input: true,
  observe: false,
  admin: false,
  metrics: true,
};
