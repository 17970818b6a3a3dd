import { z } from 'zod';
import { durationMs, timestamp } from './common.ts';
import { GRACE_MS } from './vocabulary.ts';

const grace = durationMs.meta({ description: 'The time between SIGTERM and SIGKILL, in milliseconds. Default 5000.' });
const graceMs = grace.default(GRACE_MS);
const graceOfView = durationMs.meta({ description: 'The time between SIGTERM and SIGKILL, in milliseconds.' });
const afterMs = durationMs.meta({
  description: 'How long the process may run, in milliseconds from its start. Suspended time counts.',
});
const ttlMs = durationMs.meta({ description: 'How long the lease lasts without a renewal, in milliseconds.' });

export const Timeout = z.strictObject({ afterMs, graceMs }).meta({
  id: 'Timeout',
  description: 'Ends the process as `terminate` does once it has run for so long.',
  examples: [{ afterMs: 60000, graceMs: 5000 }],
});
export type Timeout = z.output<typeof Timeout>;

export const TimeoutChange = z.strictObject({ afterMs, graceMs: grace.optional() }).meta({
  id: 'TimeoutChange',
  description: 'The new timeout, still counted from the start. Without `graceMs` the grace stays as it is.',
  examples: [{ afterMs: 120000 }],
});
export type TimeoutChange = z.output<typeof TimeoutChange>;

export const Lease = z.strictObject({ ttlMs, graceMs }).meta({
  id: 'Lease',
  description: 'Ends the process as `terminate` does unless the lease is renewed in time, or held by a WebSocket.',
  examples: [{ ttlMs: 30000, graceMs: 5000 }],
});
export type Lease = z.output<typeof Lease>;

const expiry = timestamp.meta({ description: 'When the lease expires unless it is renewed.' });

export const LeaseView = z
  .object({
    ttlMs,
    graceMs: graceOfView,
    expiresAt: expiry.optional().meta({
      description: 'When the lease expires unless it is renewed. Absent while a WebSocket holds it, and after the end.',
    }),
  })
  .meta({
    id: 'LeaseView',
    description: 'The lease of a process.',
    examples: [{ ttlMs: 30000, graceMs: 5000, expiresAt: '2026-01-31T12:00:30.000Z' }],
  });

export const TimeoutView = z.object({ afterMs, graceMs: graceOfView }).meta({
  id: 'TimeoutView',
  description: 'The timeout of a process.',
  examples: [{ afterMs: 60000, graceMs: 5000 }],
});

export const RenewedLease = z.object({ expiresAt: expiry }).meta({
  id: 'RenewedLease',
  description: 'The lease after its renewal.',
  examples: [{ expiresAt: '2026-01-31T12:00:30.000Z' }],
});
export type RenewedLease = z.infer<typeof RenewedLease>;
