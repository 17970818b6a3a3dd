import type { Client } from './client.ts';

/** Who waits for an answer. */
export interface Caller {
  /** `null`: the daemon itself. */
  client: Client | null;
  /** Fires when it has gone away, or is not let in any more: what it waited for is then nobody's. */
  gone: AbortSignal;
}
