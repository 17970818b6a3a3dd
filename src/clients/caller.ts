import type { Client } from './client.ts';

/** The party that waits for the result of an operation. */
export interface Caller {
  /** `null` for the daemon itself. */
  client: Client | null;
  /** Aborted when the caller disconnects or its credentials are revoked. After that, no status may be collected for it. */
  abortSignal: AbortSignal;
}
