import { z } from 'zod';
import { boundedArray, boundedRecord, MOST_ARGUMENTS, MOST_VARIABLES } from './bounded.ts';
import { cString, handleId, Outcome, ProcessView, Rusage, signal } from './common.ts';
import { MOST_LABELS, resources } from './vocabulary.ts';

const absolutePath = cString.startsWith('/', 'must be an absolute path').max(4096);

export const labelKey = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/,
    'must be letters, digits, and . _ / - within, at most 128',
  );
export const labelValue = cString.max(256);
export const labels = <V extends z.ZodType>(value: V) =>
  boundedRecord(z.record(labelKey, value), { most: MOST_LABELS, message: `at most ${MOST_LABELS} labels` });

const File = z.strictObject({ file: absolutePath, append: z.boolean().optional() });
const Output = z.union([z.enum(['null', 'inherit', 'capture']), File]);

const id = z.union([z.int().min(0).max(4294967294), cString.regex(/^[^:\n]{1,256}$/)], {
  error: 'must be a name or a number',
});

const bound = z.union([z.int().min(0), z.literal('unlimited')], { error: 'must be a whole number or "unlimited"' });
const Limit = z.union([bound, z.strictObject({ soft: bound, hard: bound })]);

const argument = z.union([cString, z.strictObject({ secret: cString })], {
  error: 'must be text, or {"secret": text}',
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
          'The program and its arguments. A secret argument goes to the program, and is shown to nobody: *** stands for it.',
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
      .meta({ description: 'Added to PATH, HOME and LANG; the daemon’s own environment is not passed on.' }),
    cwd: absolutePath.default('/'),
    stdin: z
      .union([z.literal('null'), z.strictObject({ text }), z.strictObject({ base64: z.base64() })])
      .default('null'),
    stdout: Output.default('null'),
    stderr: z.union([z.enum(['null', 'inherit', 'capture', 'stdout']), File]).default('null'),
    user: id.optional().meta({ description: 'Name or uid; HOME and the groups are that user’s.' }),
    group: id.optional().meta({ description: 'Name or gid, instead of the user’s own.' }),
    limits: boundedRecord(z.partialRecord(z.enum(resources), Limit), {
      most: resources.length,
      message: `there are ${resources.length} limits`,
    })
      .optional()
      .meta({ description: 'setrlimit(2), each in its own unit: soft and hard alike, or each.' }),
    nice: z.int().min(-20).max(19).optional(),
    umask: z
      .string()
      .regex(/^[0-7]{3,4}$/, 'must be three or four octal digits')
      .optional(),
    noNewPrivileges: z.boolean().optional(),
    cgroup: z
      .strictObject({
        memoryMax: z.int().min(4096).optional().meta({ description: 'Bytes' }),
        pidsMax: z.int().min(1).max(4194304).optional(),
        cpuPercent: z.number().min(1).max(100_000).optional().meta({ description: 'Of one processor' }),
      })
      .optional()
      .meta({ description: 'A cgroup of its own, which scope tree kills whole.' }),
  })
  .meta({ id: 'Spawn', examples: [{ argv: ['sleep', '5'], cwd: '/tmp' }] });
export type Spawn = z.output<typeof Spawn>;

const pattern = cString.min(1).max(4096).meta({ description: 'Where * stands for anything.' });

export const Match = z
  .strictObject({ cgroup: pattern.optional(), exe: pattern.optional(), argv: pattern.optional() })
  .refine(
    (match) => Object.values(match).some((part) => part !== undefined),
    'give at least one of cgroup, exe and argv',
  )
  .meta({
    id: 'Match',
    description:
      'Processes by their cgroup (v2, as the daemon sees it), program and arguments: all that are given must fit.',
    examples: [{ cgroup: '*/pod1234*', argv: 'nginx: master*' }],
  });
export type Match = z.infer<typeof Match>;

export const Open = z
  .strictObject({
    pid: z.int().min(1).max(2147483647).optional(),
    inode: z
      .string()
      .regex(/^\d{1,20}$/, 'must be a decimal number in a string')
      .nullish()
      .meta({ description: 'Null, as views show it before Linux 6.9, is as if it were not given.' }),
    match: Match.optional(),
  })
  .refine(({ pid, match }) => (pid === undefined) !== (match === undefined), 'give exactly one of pid and match')
  .refine(({ pid, inode }) => inode == null || pid !== undefined, {
    error: 'an inode goes with its pid',
    path: ['inode'],
  })
  .meta({ id: 'Open', examples: [{ pid: 4711, inode: '90210' }, { match: { argv: 'nginx: master*' } }] });

export const CreateHandle = z
  .strictObject({
    spawn: Spawn.optional(),
    open: Open.optional(),
    dup: handleId.optional(),
    nonblocking: z.boolean().optional(),
    labels: labels(labelValue).default({}),
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
    examples: [{ spawn: { argv: ['sleep', '5'] }, nonblocking: true, labels: { job: '42' } }],
  });
export type CreateHandle = z.output<typeof CreateHandle>;

export const UpdateHandle = z
  .strictObject({ nonblocking: z.boolean().optional(), labels: labels(labelValue.nullable()).optional() })
  .meta({ id: 'UpdateHandle', examples: [{ nonblocking: true, labels: { job: '43', old: null } }] });
export type UpdateHandle = z.output<typeof UpdateHandle>;

export const HandleView = z
  .object({
    id: handleId,
    nonblocking: z.boolean(),
    relation: z.enum(['child', 'foreign']),
    state: z.enum(['running', 'stopped', 'exited']),
    labels: z.record(z.string(), z.string()),
    client: z.string(),
    process: ProcessView,
    outcome: Outcome.nullable(),
    rusage: Rusage.nullable(),
    collected: z.boolean(),
    createdAt: z.string(),
    seq: z.int(),
    watch: z.string().optional().meta({ description: 'The watch that opened it.' }),
  })
  .meta({
    id: 'Handle',
    description: 'One client’s descriptor on one process.',
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
  .object({ handles: z.array(HandleView), next: z.string().nullable() })
  .meta({ id: 'HandleList', examples: [{ handles: [], next: null }] });

/** `k=v`, split at the first `=`. */
const labelFilter = z
  .string()
  .regex(/^[^=]+=/, 'must be key=value')
  .max(400)
  .transform((text): [string, string] => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]);

export const limit = z.int().min(1).max(1000).default(100);

export const ListHandles = z.strictObject({
  state: z.enum(['running', 'stopped', 'exited']).optional(),
  label: z.array(labelFilter).max(MOST_LABELS, `at most ${MOST_LABELS} labels`).default([]),
  limit,
  cursor: z
    .string()
    .regex(/^c\d{1,15}$/, 'must be the next of an earlier page')
    .transform((text) => Number(text.slice(1)))
    .optional(),
});
export type ListHandles = z.output<typeof ListHandles>;

export const HandleParams = z.object({ id: handleId });
export const CloseQuery = z.strictObject({ signal: signal.optional() });
export type CloseQuery = z.output<typeof CloseQuery>;
