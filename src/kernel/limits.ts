import { type Resource, resources } from '../../schemas/vocabulary.ts';
import { bind, checked } from './libc.ts';

const prlimit = bind('int prlimit(int pid, int resource, void *wanted, void *old)');

/** The RLIMIT_ constant of a resource, the same on both architectures that we run on. */
export const resourceNumber = (resource: Resource): number => resources.indexOf(resource);

const RLIM_INFINITY = 2n ** 64n - 1n;

/** In the resource's own unit. */
export type Bound = number | 'unlimited';

/** A bound as prlimit(2) takes it. */
export const rlimOf = (bound: Bound): bigint => (bound === 'unlimited' ? RLIM_INFINITY : BigInt(bound));

/**
 * A limit of the daemon itself, which its children inherit.
 * @throws {SystemError}
 */
export function limitOf(resource: Resource): { soft: Bound; hard: Bound } {
  const found = Buffer.alloc(16);
  checked('prlimit', prlimit(0, resourceNumber(resource), null, found));
  const [soft, hard] = [found.readBigUInt64LE(0), found.readBigUInt64LE(8)].map((bound) =>
    bound === RLIM_INFINITY ? ('unlimited' as const) : Number(bound),
  );
  return { soft: soft!, hard: hard! };
}
