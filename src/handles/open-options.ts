import type { Claim } from '../idempotency/idempotency-keys.ts';
import type { Sighting } from '../journal/change.ts';
import type { Features } from '../kernel/features.ts';
import type { Labels } from '../model/process.ts';

export interface OpenOptions {
  nonblocking: boolean;
  /** Refused if another open handle of the client has it; `null` for none. */
  name: string | null;
  labels: Labels;
  /** Of a request with an idempotency key. The key is written together with the handle, so that a retry finds the handle. */
  claim?: Claim | undefined;
  /** The watch that opens the handle, the process that it has found, and how many handles it has opened with this one. */
  sighting?: (Sighting & { opened: number }) | undefined;
}

/** Returns whether the pidfd gets O_NONBLOCK. A kernel before 5.10 refuses that flag; only the description knows it then. */
export function descriptorFlag({ nonblocking }: OpenOptions, features: Features): boolean {
  return nonblocking && features.nonblocking;
}
