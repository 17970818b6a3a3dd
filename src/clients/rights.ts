import type { Resource } from '../../schemas/vocabulary.ts';
import type { CgroupLimits } from '../cgroups/cgroups.ts';
import type { Bound } from '../kernel/limits.ts';

/** Whose processes a client may open, beside what it holds already. */
export const openScopes = ['none', 'own', 'uid', 'any'] as const;

/**
 * `own`: those that it holds, and what came of them. `uid`: those that kill(2) would let its user signal, by their real or
 * saved uid. `any`: all that the daemon can.
 */
export type OpenScope = (typeof openScopes)[number];

/** What may be spawned. What is not listed may not. */
export interface SpawnRule {
  /** Paths of programs, and of directories (with a slash at their end) whose programs, at any depth, are meant. */
  programs: string[];
  /** Names or uids to run as, `*` for any; the first one is for a request that names none. Empty: as the daemon itself. */
  users: (string | number)[];
  /** Where files for output, and the working directory beside `/`, may be, at any depth. */
  directories: string[];
  /** Names of variables that may be set; a `*` at the end stands for any rest. */
  environment: string[];
  /** The lowest nice value that may be given, beside the daemon's own and those above it. */
  nice?: { min: number } | undefined;
  /** How far limits may be raised, soft and hard, beyond what a program inherits from the daemon. */
  limits: Partial<Record<Resource, Bound>>;
  /** The bits that every umask must take, octal, where these are not those of the daemon's own. */
  umask?: string | undefined;
  /** Whether programs may have a cgroup of their own, and the most that its limits may be. */
  cgroup: CgroupLimits | boolean;
}

/** What a client may do. */
export interface Rights {
  open: OpenScope;
  /** True: whatever the daemon can. */
  spawn: SpawnRule | boolean;
  /** Signal, and terminate, what it holds. */
  signal: boolean;
  /** See every client's handles, events and output, and change none of them. */
  observe: boolean;
  /** The same, and change them too. */
  admin: boolean;
  /** Read the metrics, which count what all clients have. */
  metrics: boolean;
}

/** What every client may do that is let in without a policy: all that the daemon can, with what is its own. */
export const unlimited: Rights = {
  open: 'any',
  spawn: true,
  signal: true,
  observe: false,
  admin: false,
  metrics: true,
};
