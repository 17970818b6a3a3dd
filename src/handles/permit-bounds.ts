import { readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import type { Timeout } from '../../schemas/lifetime.ts';
import { GRACE_MS, type Resource } from '../../schemas/vocabulary.ts';
import type { CgroupLimits } from '../cgroups/cgroups.ts';
import { notAllowed } from '../clients/client.ts';
import type { SpawnRule } from '../clients/rights.ts';
import { type Bound, limitOf } from '../kernel/limits.ts';
import type { LaunchRequest } from '../spawn/launch-request.ts';

/**
 * Refuses bounds that are wider than those that every program inherits from the daemon, unless the policy lists them. Narrower ones
 * are always allowed.
 * @returns the limits of the cgroup and the timeout, with the policy's where the request has none
 * @throws {Problem} EPERM
 */
export function permittedBounds(rule: SpawnRule, { nice, limits, umask, cgroup, timeout }: LaunchRequest): Bounds {
  if (nice !== undefined && nice < getPriority() && nice < (rule.nice?.min ?? Number.POSITIVE_INFINITY))
    throw notAllowed(`give programs the nice value ${nice}`);
  for (const [resource, bound] of Object.entries(limits ?? {}) as [Resource, NonNullable<typeof limits>[Resource]][]) {
    if (bound === undefined) continue;
    const { soft, hard } = typeof bound === 'object' ? bound : { soft: bound, hard: bound };
    const own = limitOf(resource);
    const listed = rule.limits[resource];
    for (const [wanted, inherited] of [
      [soft, own.soft],
      [hard, own.hard],
    ] as const)
      if (isAbove(wanted, inherited) && (listed === undefined || isAbove(wanted, listed)))
        throw notAllowed(`raise the limit ${resource} so far`);
  }
  if (umask !== undefined && !hidesAll(umask, ownUmask()) && (rule.umask === undefined || !hidesAll(umask, rule.umask)))
    throw notAllowed(`give programs the umask ${umask}`);
  return {
    cgroup: cgroup && permittedCgroup(rule.cgroup, cgroup),
    timeout: permittedTimeout(rule, timeout ?? longest(rule)) ?? undefined,
  };
}

export type Bounds = Pick<LaunchRequest, 'cgroup' | 'timeout'>;

/** Returns the timeout of a program whose request has none; `null` without a bound. */
function longest({ maxLifetimeMs }: SpawnRule): Timeout | null {
  if (maxLifetimeMs === undefined) return null;
  const graceMs = Math.min(GRACE_MS, Math.floor(maxLifetimeMs / 2));
  return { afterMs: maxLifetimeMs - graceMs, graceMs };
}

/**
 * Refuses a timeout with which a process could live longer than the policy allows, and the removal of one.
 * @throws {Problem} EPERM
 */
export function permittedTimeout(rule: SpawnRule | boolean, timeout: Timeout | null): Timeout | null {
  const most = typeof rule === 'object' ? rule.maxLifetimeMs : undefined;
  if (most !== undefined && (timeout === null || timeout.afterMs + timeout.graceMs > most))
    throw notAllowed(`let a process live longer than ${most} ms, its grace included`);
  return timeout;
}

/** Returns the limits of a cgroup. A limit that the request leaves out is the policy's. */
function permittedCgroup(listed: SpawnRule['cgroup'], wanted: CgroupLimits): CgroupLimits {
  if (listed === false) throw notAllowed('give programs a cgroup of their own');
  if (listed === true) return wanted;
  for (const name of ['memoryMax', 'pidsMax', 'cpuPercent'] as const)
    if ((wanted[name] ?? 0) > (listed[name] ?? Number.POSITIVE_INFINITY))
      throw notAllowed(`give a cgroup a ${name} of ${wanted[name]}`);
  const given = Object.entries(wanted).filter(([, value]) => value !== undefined);
  return { ...listed, ...Object.fromEntries(given) };
}

function isAbove(wanted: Bound, most: Bound): boolean {
  if (most === 'unlimited') return false;
  return wanted === 'unlimited' || wanted > most;
}

/** Returns whether a mask clears all the bits that another one clears. Both are octal. */
function hidesAll(mask: string, other: string): boolean {
  const bits = Number.parseInt(other, 8);
  return (Number.parseInt(mask, 8) & bits) === bits;
}

/** Reads the umask from /proc, because process.umask() changes it for a moment. */
function ownUmask(): string {
  return /^Umask:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0777';
}
