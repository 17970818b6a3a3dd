import { Problem } from './problem.ts';

/** Answers waiting calls when the daemon stops. */
export const stopping = new Problem('ESHUTDOWN', 'The daemon is stopping. Retry when it is back.', {
  retry: { afterMs: 1000 },
  headers: { connection: 'close' },
});

/** Answers waiting calls when the daemon is replaced. */
export const restarting = new Problem('ESHUTDOWN', 'The daemon is being upgraded and keeps all state. Retry now.', {
  retry: { afterMs: 0 },
  headers: { connection: 'close' },
});
