import { z } from 'zod';
import { boundedArray, boundedRecord, MOST_ARGUMENTS, MOST_VARIABLES } from './bounded.ts';
import { cString, handleId, Outcome, ProcessView, Rusage, signal, timestamp } from './common.ts';
import { exactlyOneOf } from './exactly-one-of.ts';
import { MOST_LABELS, resources } from './vocabulary.ts';

const absolutePath = cString.startsWith('/', 'must be an absolute path').max(4096);

export const labelKey = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/,
    'must be letters, digits, and . _ / - within, at most 128',
  );
export const labelValue = cString.max(256);

/** Labels of a request. Registered and not copied by `meta`, so that the bound stays. */
const labelsOf = <V extends z.ZodType>(value: V, facts: { id: string; description: string }) =>
  boundedRecord(z.record(labelKey, value), { most: MOST_LABELS, message: `at most ${MOST_LABELS} labels` }).register(
    z.globalRegistry,
    { ...facts, maxProperties: MOST_LABELS },
  );

export const Labels = labelsOf(labelValue, {
  id: 'Labels',
  description: `Names and values that the client chooses, at most ${MOST_LABELS}.`,
});
export const LabelChanges = labelsOf(labelValue.nullable(), {
  id: 'LabelChanges',
  description: 'Labels to set. Null removes a label.',
});

/** Labels of an answer. */
export const labelsView = z
  .record(z.string(), z.string())
  .meta({ description: 'The names and values that the client chose.', examples: [{ job: '42' }] });

const File = z
  .strictObject({
    file: absolutePath.meta({ description: 'An absolute path. The file is created if it does not exist.' }),
    append: z
      .boolean()
      .optional()
      .meta({ description: 'Whether to append to the file instead of truncating it first. Default false.' }),
  })
  .meta({ id: 'OutputFile', description: 'A file that takes an output stream.', examples: [{ file: '/tmp/log' }] });
const Output = z.union([z.enum(['null', 'inherit', 'capture']), File]);

const id = z.union([z.int().min(0).max(4294967294), cString.regex(/^[^:\n]{1,256}$/)], {
  error: 'must be a name or a number',
});

const bound = z.union([z.int().min(0), z.literal('unlimited')], { error: 'must be a whole number or "unlimited"' });
const Limit = z
  .union([
    bound,
    z
      .strictObject({
        soft: bound.meta({ description: 'The limit that the kernel enforces.' }),
        hard: bound.meta({ description: 'The limit up to which the process may raise the soft limit.' }),
      })
      .meta({ title: 'SoftAndHard' }),
  ])
  .meta({ id: 'Limit', description: 'Both limits at once, or the soft and the hard limit.', examples: [1024] });

const argument = z
  .union(
    [
      cString,
      z
        .strictObject({ secret: cString.meta({ description: 'The argument that the program gets.' }) })
        .meta({ title: 'SecretArgument' }),
    ],
    { error: 'must be text, or {"secret": text}' },
  )
  .meta({
    id: 'Argument',
    description: 'An argument. Views and events show `***` instead of a secret one.',
    examples: ['--verbose', { secret: '--password=…' }],
  });

/** No tuple: generators of clients take its `prefixItems` for all that there may be. */
const programAndArguments = z
  .array(argument)
  .min(1, 'must name the program')
  .refine((argv) => typeof argv[0] === 'string', { error: 'must be text', path: [0] }) as unknown as z.ZodType<
  [string, ...z.infer<typeof argument>[]]
>;

const text = z.string().refine((value) => value.isWellFormed(), 'must be well-formed Unicode');

export const Spawn = z
  .strictObject({
    argv: boundedArray(
      programAndArguments.meta({
        description:
          'The program and its arguments. A program without a slash is looked up in the PATH that the process gets. The program itself cannot be secret.',
      }),
      (at) => (at === 0 ? cString : argument),
      {
        most: MOST_ARGUMENTS,
        message: `has more arguments than the kernel takes, which are below ${MOST_ARGUMENTS}`,
        errno: 'E2BIG',
      },
    ),
    env: boundedRecord(z.record(cString.regex(/^[^=]+$/, 'must be a name without ='), cString), {
      most: MOST_VARIABLES,
      message: `has more variables than the kernel takes, which are below ${MOST_VARIABLES}`,
      errno: 'E2BIG',
    })
      .default({})
      .meta({
        description: 'Environment variables besides PATH, HOME and LANG. The process does not get the daemon’s.',
      }),
    cwd: absolutePath.default('/').meta({ description: 'The working directory.' }),
    stdin: z
      .union([
        z.literal('null'),
        z.strictObject({ text: text.meta({ description: 'All of the input, as text.' }) }).meta({ title: 'TextInput' }),
        z
          .strictObject({ base64: z.base64().meta({ description: 'All of the input, as bytes in base64.' }) })
          .meta({ title: 'BinaryInput' }),
      ])
      .default('null')
      .meta({ description: 'The standard input: none (`null`), or what the request gives.' }),
    stdout: Output.default('null').meta({
      description: 'Where the standard output goes: nowhere, to the daemon’s own, to a capture, or to a file.',
    }),
    stderr: z
      .union([z.enum(['null', 'inherit', 'capture', 'stdout']), File])
      .default('null')
      .meta({
        description: 'Where the standard error goes: as `stdout`, or with `stdout` to the same place as the output.',
      }),
    user: id
      .optional()
      .meta({ description: 'The user to run as, by name or uid. HOME and the groups are then of this user.' }),
    group: id
      .optional()
      .meta({ description: 'The group to run as, by name or gid, instead of the group of the user.' }),
    limits: boundedRecord(z.partialRecord(z.enum(resources), Limit), {
      most: resources.length,
      message: `there are ${resources.length} limits`,
    })
      .optional()
      .meta({ description: 'Resource limits of setrlimit(2), each in its own unit.' }),
    nice: z.int().min(-20).max(19).optional().meta({ description: 'The nice value.' }),
    umask: z
      .string()
      .regex(/^[0-7]{3,4}$/, 'must be three or four octal digits')
      .optional()
      .meta({ description: 'The file mode creation mask, in octal.', examples: ['022'] }),
    noNewPrivileges: z
      .boolean()
      .optional()
      .meta({ description: 'Whether exec cannot grant privileges (PR_SET_NO_NEW_PRIVS). Default false.' }),
    cgroup: z
      .strictObject({
        memoryMax: z.int().min(4096).optional().meta({ description: 'The most memory, in bytes.' }),
        pidsMax: z.int().min(1).max(4194304).optional().meta({ description: 'The most processes and threads.' }),
        cpuPercent: z
          .number()
          .min(1)
          .max(100_000)
          .optional()
          .meta({ description: 'The most CPU time, in percent of one processor.' }),
      })
      .optional()
      .meta({
        title: 'CgroupLimits',
        description: 'Gives the process a cgroup of its own with these limits. Scope `tree` kills all of it at once.',
      }),
  })
  .meta({ id: 'Spawn', description: 'A program to start.', examples: [{ argv: ['sleep', '5'], cwd: '/tmp' }] });
export type Spawn = z.output<typeof Spawn>;

const pattern = (what: string) =>
  cString
    .min(1)
    .max(4096)
    .meta({ description: `${what} A \`*\` stands for any characters.` });

const matchers = {
  cgroup: pattern('The cgroup (v2), as the daemon sees it.').optional(),
  exe: pattern('The path of the program.').optional(),
  argv: pattern('The arguments, joined by spaces.').optional(),
};

export const Match = z
  .strictObject(matchers)
  .refine(
    (match) => Object.values(match).some((part) => part !== undefined),
    'give at least one of cgroup, exe and argv',
  )
  .meta({
    id: 'Match',
    description: 'Selects processes. All of the given patterns must fit.',
    minProperties: 1,
    examples: [{ cgroup: '*/pod1234*', argv: 'nginx: master*' }],
  });
export type Match = z.infer<typeof Match>;

/** A matcher in an answer, which may get more fields. */
export const MatchView = z.object(matchers).meta({
  id: 'MatchView',
  description: 'The patterns that select processes.',
  examples: [{ argv: 'nginx: master*' }],
});

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
    dup: handleId.optional().meta({ description: 'The id of the handle to duplicate.' }),
    nonblocking: z
      .boolean()
      .optional()
      .meta({ description: 'Whether `waitid` answers EAGAIN instead of waiting (O_NONBLOCK). Default false.' }),
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
      { spawn: { argv: ['sleep', '5'] }, nonblocking: true, labels: { job: '42' } },
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
    labels: LabelChanges.optional(),
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
  })
  .meta({ id: 'HandleList', description: 'A page of handles.', examples: [{ handles: [], next: null }] });

/** `k=v`, split at the first `=`. */
const labelFilter = z
  .string()
  .regex(/^[^=]+=/, 'must be key=value')
  .max(400)
  .transform((text): [string, string] => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]);

export const limit = z.int().min(1).max(1000).default(100).meta({ description: 'The most entries of the page.' });

export const ListHandles = z.strictObject({
  state: states.optional().meta({ description: 'Only handles whose process is in this state.' }),
  label: z.array(labelFilter).max(MOST_LABELS, `at most ${MOST_LABELS} labels`).default([]).meta({
    description: 'Only handles with this label, as `key=value`. It may be given several times: all must fit.',
  }),
  limit,
  cursor: z
    .string()
    .regex(/^c\d{1,15}$/, 'must be the next of an earlier page')
    .transform((text) => Number(text.slice(1)))
    .optional()
    .meta({ description: 'The `next` of the page before.' }),
});
export type ListHandles = z.output<typeof ListHandles>;

export const HandleParams = z.object({ id: handleId });
export const CloseQuery = z.strictObject({
  signal: signal
    .optional()
    .meta({ description: 'A signal to send before the handle is closed. It is ignored if the process has ended.' }),
});
export type CloseQuery = z.output<typeof CloseQuery>;
