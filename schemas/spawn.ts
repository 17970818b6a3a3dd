import { z } from 'zod';
import { boundedArray, boundedRecord, MOST_ARGUMENTS, MOST_VARIABLES } from './bounded.ts';
import { cString } from './common.ts';
import { Lease, Timeout } from './lifetime.ts';
import { WindowSize } from './terminal.ts';
import { resources } from './vocabulary.ts';

const absolutePath = cString.startsWith('/', 'must be an absolute path').max(4096);

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
        z.enum(['null', 'pipe']),
        z.strictObject({ text: text.meta({ description: 'All of the input, as text.' }) }).meta({ title: 'TextInput' }),
        z
          .strictObject({ base64: z.base64().meta({ description: 'All of the input, as bytes in base64.' }) })
          .meta({ title: 'BinaryInput' }),
      ])
      .optional()
      .meta({
        description:
          'The standard input: none (`null`, the default), what the request gives, or a pipe for later requests to write to.',
      }),
    tty: WindowSize.optional().meta({
      description:
        'Gives the process a terminal of this size as standard input, output and error, and as controlling terminal. What it shows is captured as `stdout`. `stdin`, `stdout` and `stderr` must be left out.',
    }),
    stdout: Output.optional().meta({
      description:
        'Where the standard output goes: nowhere (`null`, the default), to the daemon’s own, to a capture, or to a file.',
    }),
    stderr: z
      .union([z.enum(['null', 'inherit', 'capture', 'stdout']), File])
      .optional()
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
    timeout: Timeout.optional(),
    lease: Lease.optional(),
  })
  .superRefine(({ tty, ...spawn }, context) => {
    for (const stream of ['stdin', 'stdout', 'stderr'] as const)
      if (tty !== undefined && spawn[stream] !== undefined)
        context.addIssue({ code: 'custom', path: [stream], message: 'must be left out with tty' });
  })
  .meta({ id: 'Spawn', description: 'A program to start.', examples: [{ argv: ['sleep', '5'], cwd: '/tmp' }] });
export type Spawn = z.output<typeof Spawn>;
