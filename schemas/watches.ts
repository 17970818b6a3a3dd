import { z } from 'zod';
import { timestamp } from './common.ts';
import { Labels, labelsView } from './labels.ts';
import { Match, MatchView } from './match.ts';

/** What a request and an answer say of a watch with the same words. */
const existing = z.boolean().meta({ description: 'Whether to open the processes too that exist already.' });
const nonblocking = z.boolean().meta({ description: 'Whether the handles are nonblocking (O_NONBLOCK).' });

export const CreateWatch = z
  .strictObject({
    match: Match,
    existing: existing.default(false),
    nonblocking: nonblocking.default(false),
    labels: Labels.default({}),
  })
  .meta({
    id: 'CreateWatch',
    description: 'Which processes to open, and how.',
    examples: [{ match: { cgroup: '*/pod1234*' }, existing: true, labels: { pod: '1234' } }],
  });
export type CreateWatch = z.output<typeof CreateWatch>;

const watchId = z
  .string()
  .max(100)
  .meta({ description: 'The id of a watch.', examples: ['w_gHxdARUOi68JR2n92WnHQjBiWyQi'] });

export const WatchView = z
  .object({
    id: watchId,
    client: z.string().meta({ description: 'The client that owns the watch.', examples: ['uid:0'] }),
    match: MatchView,
    existing,
    nonblocking,
    labels: labelsView,
    by: z
      .enum(['events', 'scan'])
      .meta({ description: 'How the daemon learns of new processes: from the kernel, or by reading /proc.' }),
    misses: z.string().meta({ description: 'Which processes it does not learn of in this way.' }),
    createdAt: timestamp.meta({ description: 'When the watch was made.' }),
    opened: z.int().min(0).meta({ description: 'How many handles the watch has opened so far.' }),
  })
  .meta({
    id: 'Watch',
    description: 'A standing order to open a handle on every process that matches.',
    examples: [
      {
        id: 'w_gHxdARUOi68JR2n92WnHQjBiWyQi',
        client: 'uid:0',
        match: { argv: 'nginx: worker*' },
        existing: false,
        nonblocking: false,
        labels: {},
        by: 'scan',
        misses: 'a process that starts and ends between two looks at /proc',
        createdAt: '2026-01-31T12:00:00.000Z',
        opened: 0,
      },
    ],
  });
export type WatchView = z.infer<typeof WatchView>;

export const WatchList = z
  .object({ watches: z.array(WatchView).meta({ description: 'The watches, newest first.' }) })
  .meta({ id: 'WatchList', description: 'All watches of the client.', examples: [{ watches: [] }] });

export const WatchParams = z.object({ id: watchId });
