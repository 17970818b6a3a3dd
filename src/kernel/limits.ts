import { type Resource, resources } from '../../schemas/vocabulary.ts';
import { bind, checked } from './libc.ts';

const prlimit = bind('int prlimit(int pid, int resource, void *wanted, void *old)');

/** Returns the RLIMIT_ constant of a resource, which is the same on x64 and arm64. */
export const resourceNumber = (resource: Resource): number => resources.indexOf(resource);

const RLIM_INFINITY = 2n ** 64n - 1n;

/** A resource limit in the resource's own unit (getrlimit(2)). */
export type Bound = number | 'unlimited';

/** Converts a limit to the rlim_t of prlimit(2). */
export const rlimOf = (bound: Bound): bigint => (bound === 'unlimited' ? RLIM_INFINITY : BigInt(bound));

/**
 * Reads a resource limit of the daemon, which its children inherit (prlimit(2)).
 * @throws {SystemError} if prlimit fails
 */
export function limitOf(resource: Resource): { soft: Bound; hard: Bound } {
  const found = Buffer.alloc(16);
  checked('prlimit', prlimit(0, resourceNumber(resource), null, found));
  const [soft, hard] = [found.readBigUInt64LE(0), found.readBigUInt64LE(8)].map((bound) =>
    bound === RLIM_INFINITY ? ('unlimited' as const) : Number(bound),
  );
  return { soft: soft!, hard: hard! };
}
