import { z } from 'zod';
import { labels, labelValue, Match } from './handles.ts';

export const CreateWatch = z
  .strictObject({
    match: Match,
    existing: z.boolean().default(false).meta({ description: 'Also those that are there already.' }),
    nonblocking: z.boolean().default(false),
    labels: labels(labelValue).default({}),
  })
  .meta({
    id: 'CreateWatch',
    examples: [{ match: { cgroup: '*/pod1234*' }, existing: true, labels: { pod: '1234' } }],
  });
export type CreateWatch = z.output<typeof CreateWatch>;

export const WatchView = z
  .object({
    id: z.string(),
    client: z.string(),
    match: Match,
    existing: z.boolean(),
    nonblocking: z.boolean(),
    labels: z.record(z.string(), z.string()),
    by: z
      .enum(['events', 'scan'])
      .meta({ description: 'How new processes are noticed: the kernel tells, or /proc is looked through.' }),
    misses: z.string().meta({ description: 'What is not noticed this way.' }),
    createdAt: z.string(),
    opened: z.int().meta({ description: 'How many handles it has opened so far.' }),
  })
  .meta({
    id: 'Watch',
    description: 'Opens a handle on every process that matches.',
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

export const WatchList = z.object({ watches: z.array(WatchView) }).meta({ id: 'WatchList' });

export const WatchParams = z.object({ id: z.string().max(100) });
