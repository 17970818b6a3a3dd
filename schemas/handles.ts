import { z } from 'zod';
import { handleId, handleRef, nameView, Outcome, ProcessView, Rusage, signal, timestamp } from './common.ts';
import { exactlyOneOf } from './exactly-one-of.ts';
import { LabelChanges, Labels, labelFilters, labelsView } from './labels.ts';
import { LeaseView, TimeoutChange, TimeoutView } from './lifetime.ts';
import { Match } from './match.ts';
import { HandleName } from './name.ts';
import { OutputTails } from './output.ts';
import { Spawn } from './spawn.ts';

export const Open = z
  .strictObject({
    pid: z.int().min(1).max(2147483647).optional().meta({ description: 'The process id.' }),
    inode: z
      .string()
      .regex(/^\d{1,20}$/, 'must be a decimal number in a string')
      .nullish()
      .meta({
        description:
          'The inode number of the pidfd. A process that reuses the pid is then refused. Null is the same as no inode.',
      }),
    match: Match.optional(),
  })
  .refine(({ pid, match }) => (pid === undefined) !== (match === undefined), 'give exactly one of pid and match')
  .refine(({ pid, inode }) => inode == null || pid !== undefined, {
    error: 'an inode goes with its pid',
    path: ['inode'],
  })
  .meta({
    id: 'Open',
    description: 'A process to open.',
    examples: [{ pid: 4711, inode: '90210' }, { match: { argv: 'nginx: master*' } }],
    ...exactlyOneOf({
      pid: { title: 'OpenByPid', description: 'Opens the process with this pid.' },
      match: { title: 'OpenByMatch', description: 'Opens the only process that matches.', without: ['inode'] },
    }),
  });

export const CreateHandle = z
  .strictObject({
    spawn: Spawn.optional(),
    open: Open.optional(),
    dup: handleRef.optional().meta({ description: 'The handle to duplicate: its id, or `@` and its name.' }),
    nonblocking: z
      .boolean()
      .optional()
      .meta({ description: 'Whether `waitid` answers EAGAIN instead of waiting (O_NONBLOCK). Default false.' }),
    name: HandleName.nullish().meta({
      description: 'A name that no other open handle of the client has. `@` and the name stand for the id.',
    }),
    labels: Labels.default({}),
  })
  .refine((body) => [body.spawn, body.open, body.dup].filter((way) => way !== undefined).length === 1, {
    error: 'give exactly one of spawn, open and dup',
  })
  .refine((body) => body.dup === undefined || body.nonblocking === undefined, {
    error: 'a dup shares the setting of what it duplicates: leave it out',
    path: ['nonblocking'],
  })
  .meta({
    id: 'CreateHandle',
    description: 'How to make a handle.',
    examples: [
      { spawn: { argv: ['sleep', '5'] }, nonblocking: true, name: 'build-42', labels: { job: '42' } },
      { open: { pid: 4711 } },
      { dup: 'h_3q2-7wEBAgMEBQYHCAkKCw' },
    ],
    ...exactlyOneOf({
      spawn: { title: 'SpawnHandle', description: 'Starts a program.' },
      open: { title: 'OpenHandle', description: 'Opens a process that exists.' },
      dup: {
        title: 'DupHandle',
        description: 'Duplicates a handle. Both share one file description, and so `nonblocking`.',
        without: ['nonblocking'],
      },
    }),
  });
export type CreateHandle = z.output<typeof CreateHandle>;

export const UpdateHandle = z
  .strictObject({
    nonblocking: z
      .boolean()
      .optional()
      .meta({ description: 'Sets O_NONBLOCK of the file description, which duplicates of the handle share.' }),
    name: HandleName.nullable().optional().meta({ description: 'The new name of the handle. Null removes it.' }),
    labels: LabelChanges.optional(),
    timeout: TimeoutChange.nullable().optional().meta({ description: 'The new timeout. Null removes it.' }),
  })
  .meta({
    id: 'UpdateHandle',
    description: 'What to change. Fields that are left out stay as they are.',
    examples: [{ nonblocking: true, labels: { job: '43', old: null } }],
  });
export type UpdateHandle = z.output<typeof UpdateHandle>;

const states = z.enum(['running', 'stopped', 'exited']);

export const HandleView = z
  .object({
    id: handleId,
    nonblocking: z.boolean().meta({ description: 'Whether `waitid` answers EAGAIN instead of waiting (O_NONBLOCK).' }),
    relation: z.enum(['child', 'foreign']).meta({
      description: 'Whether the process is a child of the daemon, spawned or adopted, or of another process.',
    }),
    state: states.meta({ description: 'What the process does. `exited` means that it has ended, see `outcome`.' }),
    name: nameView,
    labels: labelsView,
    client: z.string().meta({ description: 'The client that owns the handle.', examples: ['uid:0'] }),
    process: ProcessView,
    outcome: Outcome.nullable().meta({
      description:
        'How the process ended. Null while it runs, and for a foreign process until its parent has reaped it.',
    }),
    rusage: Rusage.nullable().meta({
      description: 'What the process used. Null while it runs, and if it is not known.',
    }),
    collected: z.boolean().meta({ description: 'Whether a `waitid` of this client has collected the status.' }),
    createdAt: timestamp.meta({ description: 'When the handle was made.' }),
    seq: z.int().meta({
      description: 'The event cursor from before the first event of the handle. `since` with it misses nothing.',
    }),
    watch: z.string().optional().meta({ description: 'The watch that opened the handle.' }),
    timeout: TimeoutView.optional().meta({ description: 'The timeout of the process. Absent if it has none.' }),
    lease: LeaseView.optional().meta({ description: 'The lease of the process. Absent if it has none.' }),
    output: OutputTails.optional(),
  })
  .meta({
    id: 'Handle',
    description: 'A client’s descriptor on one process.',
    examples: [
      {
        id: 'h_3q2-7wEBAgMEBQYHCAkKCw',
        nonblocking: false,
        relation: 'child',
        state: 'running',
        name: 'build-42',
        labels: {},
        client: 'uid:0',
        process: { pid: 4711, inode: '90210', startedAt: '2026-01-31T12:00:00.000Z', argv: ['sleep', '5'] },
        outcome: null,
        rusage: null,
        collected: false,
        createdAt: '2026-01-31T12:00:00.000Z',
        seq: 17,
      },
    ],
  });
export type HandleView = z.infer<typeof HandleView>;

export const HandleList = z
  .object({
    handles: z.array(HandleView).meta({ description: 'The handles, newest first.' }),
    next: z
      .string()
      .nullable()
      .meta({ description: 'The `cursor` of the next page. Null on the last page.', examples: ['c42'] }),
    head: z.int().min(0).meta({
      description:
        'The cursor of the newest event. The page shows all changes up to it and none after it, so events `since` the `head` of the first page miss nothing.',
    }),
  })
  .meta({ id: 'HandleList', description: 'A page of handles.', examples: [{ handles: [], next: null, head: 17 }] });
export type HandleList = z.infer<typeof HandleList>;

export const limit = z.int().min(1).max(1000).default(100).meta({ description: 'The most entries of the page.' });

export const ListHandles = z.strictObject({
  state: states.optional().meta({ description: 'Only handles whose process is in this state.' }),
  label: labelFilters.meta({
    description: 'Only handles with this label, as `key=value`. It may be given several times: all must fit.',
  }),
  name: HandleName.optional().meta({ description: 'Only the handle with this name.' }),
  limit,
  cursor: z
    .string()
    .regex(/^c\d{1,15}$/, 'must be the next of an earlier page')
    .transform((text) => Number(text.slice(1)))
    .optional()
    .meta({ description: 'The `next` of the page before.' }),
});
export type ListHandles = z.output<typeof ListHandles>;

export const HandleParams = z.object({ id: handleRef });
export const CloseQuery = z.strictObject({
  signal: signal
    .optional()
    .meta({ description: 'A signal to send before the handle is closed. It is ignored if the process has ended.' }),
});
export type CloseQuery = z.output<typeof CloseQuery>;
