import { z } from 'zod';
import {
  durationMs,
  handleId,
  handleRef,
  nameView,
  Outcome,
  ProcessView,
  Rusage,
  Siginfo,
  StopEvent,
  timestamp,
} from './common.ts';
import { limit } from './handles.ts';
import { labelFilters, labelsView } from './labels.ts';
import { eventTypes } from './vocabulary.ts';

/** Cursors are seqs; they fit a JSON number exactly. */
const cursor = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const handles = z.array(handleRef).min(1).max(1000).meta({ description: 'The handles, by id or `@` and name.' });

export const EventQuery = z.strictObject({
  since: cursor.optional().meta({
    description:
      'Only events after this cursor. By default a page and a subscription to handles begin at the beginning, and other streams with what comes next.',
  }),
  handle: handles.optional().meta({ description: 'Only events of this handle. It may be given several times.' }),
  type: z
    .array(z.enum(eventTypes))
    .optional()
    .meta({ description: 'Only events of this type. It may be given several times.' }),
  label: labelFilters.meta({
    description:
      'Only events whose handle had this label when they happened, as `key=value`. It may be given several times: all must fit.',
  }),
  limit: limit.meta({ description: 'The most events of a page. Streams have no limit.' }),
  timeoutMs: durationMs
    .optional()
    .meta({ description: 'How long a page waits for its first event, in milliseconds. By default it does not wait.' }),
});
export type EventQuery = z.output<typeof EventQuery>;

export const EventFrame = z
  .object({
    type: z.literal('event').meta({ description: 'Always `event`.' }),
    seq: cursor.meta({ description: 'The cursor of the event. It only grows, and no cursor is used twice.' }),
    event: z.enum(eventTypes).meta({ description: 'What happened.' }),
    handle: handleId,
    name: nameView.optional().meta({
      description:
        'The name that the handle had then. Null if it had none. Missing in events from before handles had names.',
    }),
    labels: labelsView.optional().meta({
      description: 'The labels of the handle when this happened. Missing in events from before waitd stored them.',
    }),
    at: timestamp.meta({ description: 'When it happened.' }),
    process: ProcessView,
    outcome: z
      .union([Outcome, StopEvent])
      .nullable()
      .meta({ description: 'How the process ended, stopped or continued. Null for other events.' }),
    siginfo: Siginfo.nullable().meta({ description: 'What waitid(2) says of it. Null if it says nothing.' }),
    rusage: Rusage.nullable().meta({ description: 'What the process used. Null if it is not known.' }),
    watch: z.string().optional().meta({ description: 'The watch that opened the handle.' }),
  })
  .meta({
    id: 'EventFrame',
    description: 'One change of one handle.',
    examples: [
      {
        type: 'event',
        seq: 18,
        event: 'exited',
        handle: 'h_3q2-7wEBAgMEBQYHCAkKCw',
        name: 'build-42',
        labels: { job: '42' },
        at: '2026-01-31T12:00:05.000Z',
        process: { pid: 4711, inode: '90210', startedAt: '2026-01-31T12:00:00.000Z', argv: ['sleep', '5'] },
        outcome: { reason: 'exited', exitCode: 0 },
        siginfo: { signo: 'SIGCHLD', code: 'CLD_EXITED', pid: 4711, uid: 0, status: 0 },
        rusage: null,
      },
    ],
  });
export type EventFrame = z.infer<typeof EventFrame>;

const gap = {
  from: cursor.meta({ description: 'The first cursor that is missing.' }),
  to: cursor.meta({ description: 'The last cursor that is missing.' }),
  reset: z.literal(true).optional().meta({
    description:
      'Present if `since` is not a cursor of this journal: it is beyond the newest event, or from before the journal was lost or restored.',
  }),
};

export const HelloFrame = z
  .object({
    type: z.literal('hello').meta({ description: 'Always `hello`.' }),
    node: z.string().meta({ description: 'The id of the daemon and its journal.' }),
    head: cursor.meta({ description: 'The cursor of the newest event.' }),
    oldest: cursor.meta({ description: 'The cursor of the oldest event that is kept.' }),
  })
  .meta({ id: 'HelloFrame', description: 'The first frame of every stream.' });
export const GapFrame = z
  .object({ type: z.literal('gap').meta({ description: 'Always `gap`.' }), ...gap })
  .meta({ id: 'GapFrame', description: 'Events that were asked for and are not kept any more.' });
export const BookmarkFrame = z
  .object({
    type: z.literal('bookmark').meta({ description: 'Always `bookmark`.' }),
    seq: cursor.meta({ description: 'The cursor to resume from: no event up to it follows.' }),
  })
  .meta({
    id: 'BookmarkFrame',
    description: 'Sent when 10 seconds have passed without a frame, and other events have moved the head.',
    examples: [{ type: 'bookmark', seq: 1042 }],
  });
export const SubscribedFrame = z
  .object({
    type: z.literal('subscribed').meta({ description: 'Always `subscribed`.' }),
    handles: z.array(handleId).meta({ description: 'The ids of the handles.' }),
  })
  .meta({ id: 'SubscribedFrame', description: 'The replay of these handles is complete.' });
export const HeldFrame = z
  .object({
    type: z.literal('held').meta({ description: 'Always `held`.' }),
    handles: z.array(handleId).meta({ description: 'The ids of the handles.' }),
  })
  .meta({ id: 'HeldFrame', description: 'The leases of these handles are held for as long as the socket is open.' });
export const ReleasedFrame = z
  .object({
    type: z.literal('released').meta({ description: 'Always `released`.' }),
    handles: z.array(handleId).meta({ description: 'The ids of the handles.' }),
  })
  .meta({ id: 'ReleasedFrame', description: 'The socket does not hold the leases of these handles any more.' });
export const ErrorFrame = z
  .object({
    type: z.literal('error').meta({ description: 'Always `error`.' }),
    errno: z.string().meta({ description: 'The name of the error in Linux.' }),
    detail: z.string().meta({ description: 'One sentence that says what to do.' }),
  })
  .meta({ id: 'ErrorFrame', description: 'A frame of the client was refused. The socket stays open.' });

/** What the daemon sends over a WebSocket or an event stream. */
export const ServerFrame = z
  .discriminatedUnion('type', [
    EventFrame,
    HelloFrame,
    GapFrame,
    BookmarkFrame,
    SubscribedFrame,
    HeldFrame,
    ReleasedFrame,
    ErrorFrame,
  ])
  .meta({
    id: 'ServerFrame',
    description: 'What the daemon sends over a WebSocket or an event stream.',
    examples: [{ type: 'hello', node: 'n_4rT1c0Zc', head: 17, oldest: 1 }],
  });

/** What a client sends over a WebSocket. */
export const ClientFrame = z
  .discriminatedUnion('type', [
    z
      .strictObject({
        type: z.literal('subscribe').meta({ description: 'Always `subscribe`.' }),
        handles,
        since: cursor
          .optional()
          .meta({ description: 'Only events after this cursor. By default all events of the handles.' }),
      })
      .meta({ title: 'SubscribeFrame', description: 'Adds handles to the subscription.' }),
    z
      .strictObject({ type: z.literal('unsubscribe').meta({ description: 'Always `unsubscribe`.' }), handles })
      .meta({ title: 'UnsubscribeFrame', description: 'Removes handles from the subscription.' }),
    z
      .strictObject({ type: z.literal('hold').meta({ description: 'Always `hold`.' }), handles })
      .meta({ title: 'HoldFrame', description: 'Holds leases for as long as the socket is open.' }),
    z
      .strictObject({ type: z.literal('release').meta({ description: 'Always `release`.' }), handles })
      .meta({ title: 'ReleaseFrame', description: 'Ends a hold. The lease starts anew.' }),
  ])
  .meta({
    id: 'ClientFrame',
    description: 'What a client sends over a WebSocket.',
    examples: [{ type: 'subscribe', handles: ['h_1'], since: 17 }],
  });

export const EventPage = z
  .object({
    events: z.array(EventFrame).meta({ description: 'The events, oldest first.' }),
    gap: z
      .object(gap)
      .meta({ title: 'Gap' })
      .nullable()
      .meta({ description: 'Events that were asked for and are not kept any more. Null if none are missing.' }),
    next: cursor.meta({ description: 'The `since` of the next page.' }),
  })
  .meta({ id: 'EventPage', description: 'A page of events.', examples: [{ events: [], gap: null, next: 18 }] });
export type EventPage = z.infer<typeof EventPage>;
/** Events that a reader asked for and that are not stored any more. */
export type Gap = NonNullable<EventPage['gap']>;
