import { bind, checked } from './libc.ts';

const prlimit = bind('int prlimit(int pid, int resource, void *wanted, void *old)');

/** RLIMIT_ constants, the same on both architectures that we run on. */
export const resourceNumbers = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  as: 9,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
} as const;
export type Resource = keyof typeof resourceNumbers;
export const resourceNames = Object.keys(resourceNumbers) as [Resource, ...Resource[]];

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
  checked('prlimit', prlimit(0, resourceNumbers[resource], null, found));
  const [soft, hard] = [found.readBigUInt64LE(0), found.readBigUInt64LE(8)].map((bound) =>
    bound === RLIM_INFINITY ? ('unlimited' as const) : Number(bound),
  );
  return { soft: soft!, hard: hard! };
}
