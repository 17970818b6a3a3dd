import { z } from 'zod';
import { signalNumber } from './signal-names.ts';
import { problemErrnos } from './vocabulary.ts';

/** Durations are integers in milliseconds, up to 2^31-1. */
export const durationMs = z.int().min(0).max(2147483647);

/** Text that a C string can hold, and that UTF-8 can. */
export const cString = z
  .string()
  .refine((text) => !text.includes('\0'), 'must not contain a NUL character')
  .refine((text) => text.isWellFormed(), 'must be well-formed Unicode');

export const handleId = z.string().meta({ description: 'The id of a handle.', examples: ['h_3q2-7wEBAgMEBQYHCAkKCw'] });

/** The name of a handle in an answer. */
export const nameView = z
  .string()
  .nullable()
  .meta({ description: 'The name that the client gave the handle. Null if it has none.', examples: ['build-42'] });

/** How a request refers to a handle. */
export const handleRef = z
  .string()
  .max(129)
  .meta({
    description: 'The id of a handle, or `@` and its name.',
    examples: ['h_3q2-7wEBAgMEBQYHCAkKCw', '@build-42'],
  });

/** A signal by its Linux name or number. */
export const signal = z
  .union([z.string().max(12), z.int()])
  .refine((value) => signalNumber(value) !== undefined, 'must be a Linux signal: SIGTERM, SIGRTMIN+3, or its number')
  .meta({
    description: 'A signal by its Linux name (`SIGTERM`, `SIGRTMIN+3`) or its number.',
    examples: ['SIGTERM', 'SIGRTMIN+3', 15],
  });

/** A point in time: RFC 3339, in UTC. */
export const timestamp = z
  .string()
  .regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$/)
  .meta({ format: 'date-time', examples: ['2026-01-31T12:00:00.000Z'] });

const signalName = (description: string) => z.string().meta({ description, examples: ['SIGKILL'] });

/** The marks of an outcome that a deadline brought about. */
const overdue = {
  timedOut: z.literal(true).optional().meta({ description: 'Present if the timeout had passed before the end.' }),
  leaseExpired: z.literal(true).optional().meta({ description: 'Present if the lease had expired before the end.' }),
};

export const Outcome = z
  .discriminatedUnion('reason', [
    z
      .object({
        reason: z.literal('exited').meta({ description: 'The process called exit.' }),
        exitCode: z.int().min(0).max(255).meta({ description: 'The exit code.' }),
        ...overdue,
      })
      .meta({ title: 'Exited' }),
    z
      .object({
        reason: z.literal('killed').meta({ description: 'A signal ended the process.' }),
        signal: signalName('The signal that ended the process.'),
        oom: z
          .literal(true)
          .optional()
          .meta({ description: 'Present if the kernel killed the process because its cgroup ran out of memory.' }),
        ...overdue,
      })
      .meta({ title: 'Killed' }),
    z
      .object({
        reason: z
          .literal('dumped')
          .meta({ description: 'A signal ended the process, and the kernel dumped its core.' }),
        signal: signalName('The signal that ended the process.'),
        ...overdue,
      })
      .meta({ title: 'Dumped' }),
    z
      .object({
        reason: z.literal('unknown').meta({ description: 'The process ended, and the kernel does not say how.' }),
        detail: z.string().meta({ description: 'Why the outcome is not known.' }),
        ...overdue,
      })
      .meta({ title: 'Unknown' }),
  ])
  .meta({ id: 'Outcome', description: 'How a process ended.', examples: [{ reason: 'exited', exitCode: 7 }] });
export type Outcome = z.infer<typeof Outcome>;

export const StopEvent = z
  .discriminatedUnion('reason', [
    z
      .object({
        reason: z.literal('stopped').meta({ description: 'A signal stopped the process.' }),
        signal: signalName('The signal that stopped the process.'),
      })
      .meta({ title: 'Stopped' }),
    z
      .object({
        reason: z.literal('trapped').meta({ description: 'A traced process stopped for its tracer.' }),
        signal: signalName('The signal at which the process stopped.'),
      })
      .meta({ title: 'Trapped' }),
    z
      .object({ reason: z.literal('continued').meta({ description: 'SIGCONT continued the process.' }) })
      .meta({ title: 'Continued' }),
  ])
  .meta({
    id: 'StopEvent',
    description: 'How a process was stopped or continued.',
    examples: [{ reason: 'stopped', signal: 'SIGSTOP' }],
  });
export type StopEvent = z.infer<typeof StopEvent>;

export const Siginfo = z
  .object({
    signo: z.literal('SIGCHLD').meta({ description: 'Always SIGCHLD.' }),
    code: z
      .enum(['CLD_EXITED', 'CLD_KILLED', 'CLD_DUMPED', 'CLD_TRAPPED', 'CLD_STOPPED', 'CLD_CONTINUED'])
      .meta({ description: 'The `si_code`: what happened to the process.' }),
    pid: z.int().meta({ description: 'The process id.' }),
    uid: z.int().meta({ description: 'The real user id of the process.' }),
    status: z.int().meta({ description: 'The exit code for `CLD_EXITED`, else the number of the signal.' }),
  })
  .meta({
    id: 'Siginfo',
    description: 'The `siginfo_t` that waitid(2) returns.',
    examples: [{ signo: 'SIGCHLD', code: 'CLD_EXITED', pid: 4711, uid: 0, status: 7 }],
  });
export type Siginfo = z.infer<typeof Siginfo>;

/** The resources of a small command, for examples. */
export const rusageExample = {
  userUs: 1021,
  systemUs: 800,
  maxRssKiB: 3200,
  minorFaults: 88,
  majorFaults: 0,
  inBlocks: 0,
  outBlocks: 0,
  voluntarySwitches: 1,
  involuntarySwitches: 0,
};

const count = (description: string) => z.int().min(0).meta({ description });
export const Rusage = z
  .object({
    userUs: count('CPU time in user mode, in microseconds.'),
    systemUs: count('CPU time in the kernel, in microseconds.'),
    maxRssKiB: count('The largest resident set size, in KiB.'),
    minorFaults: count('Page faults that needed no input or output.'),
    majorFaults: count('Page faults that needed input or output.'),
    inBlocks: count('Blocks of 512 bytes read from file systems.'),
    outBlocks: count('Blocks of 512 bytes written to file systems.'),
    voluntarySwitches: count('Context switches because the process waited.'),
    involuntarySwitches: count('Context switches because the time slice ended.'),
  })
  .meta({
    id: 'Rusage',
    description:
      'getrusage(2) of the process and of the children that it waited for. `maxRssKiB` of a spawned process is never less than the size of the daemon at that time, because exec keeps the maximum.',
    examples: [rusageExample],
  });

export type Rusage = z.infer<typeof Rusage>;

export const ProcessView = z
  .object({
    pid: z.int().meta({ description: 'The process id.' }),
    inode: z.string().nullable().meta({
      description:
        'The inode number of the pidfd, which no other process has until the next boot. Null before Linux 6.9.',
    }),
    startedAt: timestamp.meta({ description: 'When the process started.' }),
    argv: z.array(z.string()).readonly().meta({ description: 'The first 4096 bytes of the arguments.' }),
    argvTruncated: z
      .literal(true)
      .optional()
      .meta({ description: 'Present if the process has more arguments than `argv` shows.' }),
  })
  .meta({
    id: 'Process',
    description: 'A process of this machine.',
    examples: [{ pid: 4711, inode: '90210', startedAt: '2026-01-31T12:00:00.000Z', argv: ['sleep', '5'] }],
  });

export type ProcessView = z.infer<typeof ProcessView>;

export const Retry = z
  .object({
    afterMs: z.int().min(0).meta({ description: 'How long to wait before the next attempt, in milliseconds.' }),
    events: z
      .string()
      .optional()
      .meta({ description: 'Where to subscribe instead of polling, as a path with its query.' }),
  })
  .meta({
    id: 'Retry',
    description: 'When to try again.',
    examples: [{ afterMs: 250, events: '/v1/events?handle=h_3q2-7wEBAgMEBQYHCAkKCw&since=17' }],
  });
export type Retry = z.infer<typeof Retry>;

export const ProblemDocument = z
  .object({
    type: z.string().meta({ format: 'uri-reference', description: 'The kind of problem: `/problems/` and the errno.' }),
    title: z.string().meta({ description: 'What the errno means. It is the same for every problem of this kind.' }),
    status: z.int().min(400).max(599).meta({ description: 'The HTTP status.' }),
    detail: z
      .string()
      .meta({ description: 'One sentence about this request that says what to do. It may change between versions.' }),
    instance: z.string().meta({ description: 'The id of the request, which the log of the daemon has too.' }),
    errno: z.enum(problemErrnos).meta({ description: 'The name of the error in Linux. It never changes.' }),
    syscall: z.string().optional().meta({ description: 'The system call that failed.' }),
    handle: z.string().optional().meta({ description: 'The handle that the problem is about.' }),
    retry: Retry.optional(),
    errors: z
      .array(
        z
          .object({
            path: z.string().meta({ description: 'Where in the request, as a JSON Pointer or the name of a header.' }),
            message: z.string().meta({ description: 'What is wrong there.' }),
          })
          .meta({ title: 'Misfit' }),
      )
      .optional()
      .meta({ description: 'What does not fit in the request, at most 20 places.' }),
    candidates: z
      .array(ProcessView)
      .readonly()
      .optional()
      .meta({ description: 'The processes that match, for ENOTUNIQ.' }),
  })
  .meta({
    id: 'Problem',
    description: 'A problem document (RFC 9457). Programs rely on `errno`, people read `detail`.',
    examples: [
      {
        type: '/problems/EBADF',
        title: 'No such handle',
        status: 404,
        detail: 'You have no such handle: list yours with GET /v1/handles.',
        instance: 'req-1',
        errno: 'EBADF',
        handle: 'h_nosuch',
      },
    ],
  });

export type ProblemDocument = z.infer<typeof ProblemDocument>;
