import { z } from 'zod';
import { durationMs, handleId, Outcome, ProcessView, Rusage, Siginfo, StopEvent } from './common.ts';
import { limit } from './handles.ts';
import { eventTypes } from './vocabulary.ts';

/** Cursors are seqs; they fit a JSON number exactly. */
const cursor = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const handles = z.array(handleId).min(1).max(1000);

export const EventQuery = z.strictObject({
  since: cursor.optional(),
  handle: handles.optional(),
  type: z.array(z.enum(eventTypes)).optional(),
  limit,
  timeoutMs: durationMs.optional(),
});
export type EventQuery = z.output<typeof EventQuery>;

export const EventFrame = z
  .object({
    type: z.literal('event'),
    seq: cursor,
    event: z.enum(eventTypes),
    handle: handleId,
    at: z.string(),
    process: ProcessView,
    outcome: z.union([Outcome, StopEvent]).nullable(),
    siginfo: Siginfo.nullable(),
    rusage: Rusage.nullable(),
    watch: z.string().optional(),
  })
  .meta({ id: 'EventFrame', description: 'One change of one handle.' });
export type EventFrame = z.infer<typeof EventFrame>;

const gap = { from: cursor, to: cursor, reset: z.literal(true).optional() };

export const HelloFrame = z
  .object({ type: z.literal('hello'), node: z.string(), head: cursor, oldest: cursor })
  .meta({ id: 'HelloFrame' });
export const GapFrame = z
  .object({ type: z.literal('gap'), ...gap })
  .meta({ id: 'GapFrame', description: 'Asked for, but not there any more; `reset`: the cursor is beyond the head.' });
export const SubscribedFrame = z
  .object({ type: z.literal('subscribed'), handles: z.array(handleId) })
  .meta({ id: 'SubscribedFrame', description: 'The replay of these handles is complete.' });
export const ErrorFrame = z
  .object({ type: z.literal('error'), errno: z.string(), detail: z.string() })
  .meta({ id: 'ErrorFrame' });

/** What the daemon sends over a WebSocket or an event stream. */
export const ServerFrame = z
  .discriminatedUnion('type', [EventFrame, HelloFrame, GapFrame, SubscribedFrame, ErrorFrame])
  .meta({ id: 'ServerFrame' });

/** What a client sends over a WebSocket. */
export const ClientFrame = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('subscribe'), handles, since: cursor.optional() }),
    z.strictObject({ type: z.literal('unsubscribe'), handles }),
  ])
  .meta({ id: 'ClientFrame', examples: [{ type: 'subscribe', handles: ['h_1'], since: 17 }] });

export const EventPage = z
  .object({ events: z.array(EventFrame), gap: z.object(gap).nullable(), next: cursor })
  .meta({ id: 'EventPage', examples: [{ events: [], gap: null, next: 18 }] });
