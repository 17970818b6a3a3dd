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

export const handleId = z
  .string()
  .max(100)
  .meta({ examples: ['h_3q2-7wEBAgMEBQYHCAkKCw'] });

/** A signal by its Linux name or number. */
export const signal = z
  .union([z.string().max(12), z.int()])
  .refine((value) => signalNumber(value) !== undefined, 'must be a Linux signal: SIGTERM, SIGRTMIN+3, or its number')
  .meta({ examples: ['SIGTERM', 'SIGRTMIN+3', 15] });

const signalName = z.string().meta({ examples: ['SIGKILL'] });

export const Outcome = z
  .discriminatedUnion('reason', [
    z.object({ reason: z.literal('exited'), exitCode: z.int().min(0).max(255) }),
    z.object({ reason: z.literal('killed'), signal: signalName, oom: z.literal(true).optional() }),
    z.object({ reason: z.literal('dumped'), signal: signalName }),
    z.object({ reason: z.literal('unknown'), detail: z.string() }),
  ])
  .meta({ id: 'Outcome', description: 'How a process ended.', examples: [{ reason: 'exited', exitCode: 7 }] });
export type Outcome = z.infer<typeof Outcome>;

export const StopEvent = z
  .discriminatedUnion('reason', [
    z.object({ reason: z.literal('stopped'), signal: signalName }),
    z.object({ reason: z.literal('trapped'), signal: signalName }),
    z.object({ reason: z.literal('continued') }),
  ])
  .meta({ id: 'StopEvent', description: 'How a process was stopped or went on.' });
export type StopEvent = z.infer<typeof StopEvent>;

export const Siginfo = z
  .object({
    signo: z.literal('SIGCHLD'),
    code: z.enum(['CLD_EXITED', 'CLD_KILLED', 'CLD_DUMPED', 'CLD_TRAPPED', 'CLD_STOPPED', 'CLD_CONTINUED']),
    pid: z.int(),
    uid: z.int(),
    status: z.int(),
  })
  .meta({
    id: 'Siginfo',
    description: 'siginfo_t of waitid(2); `status` is an exit code or a signal number, as `code` says.',
    examples: [{ signo: 'SIGCHLD', code: 'CLD_EXITED', pid: 4711, uid: 0, status: 7 }],
  });
export type Siginfo = z.infer<typeof Siginfo>;

const count = z.int().min(0);
export const Rusage = z
  .object({
    userUs: count,
    systemUs: count,
    maxRssKiB: count,
    minorFaults: count,
    majorFaults: count,
    inBlocks: count,
    outBlocks: count,
    voluntarySwitches: count,
    involuntarySwitches: count,
  })
  .meta({
    id: 'Rusage',
    description:
      'getrusage(2) of the process and the children it waited for. maxRssKiB of a spawned process is at least what the daemon itself used then: exec carries it over.',
  });

export type Rusage = z.infer<typeof Rusage>;

export const ProcessView = z
  .object({
    pid: z.int(),
    inode: z.string().nullable(),
    startedAt: z.string(),
    argv: z.array(z.string()).readonly().meta({ description: 'The first 4096 bytes of the arguments.' }),
    argvTruncated: z.literal(true).optional().meta({ description: 'There are more arguments than are shown.' }),
  })
  .meta({
    id: 'Process',
    examples: [{ pid: 4711, inode: '90210', startedAt: '2026-01-31T12:00:00.000Z', argv: ['sleep', '5'] }],
  });

export type ProcessView = z.infer<typeof ProcessView>;

export const Retry = z.object({ afterMs: z.int(), events: z.string().optional() }).meta({ id: 'Retry' });
export type Retry = z.infer<typeof Retry>;

export const ProblemDocument = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string(),
    errno: z.enum(problemErrnos),
    syscall: z.string().optional(),
    handle: z.string().optional(),
    retry: Retry.optional(),
    errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
    candidates: z.array(ProcessView).readonly().optional(),
  })
  .meta({
    id: 'Problem',
    description: 'RFC 9457. The errno is API, the detail is not.',
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

/** The answers that any route may give, and those named. */
export function problems(...statuses: number[]): Record<number, ReturnType<typeof problemResponse>> {
  const always = [400, 401, 403, 413, 414, 415, 421, 429, 431, 500, 503];
  return Object.fromEntries([...always, ...statuses].map((status) => [status, problemResponse()]));
}

function problemResponse() {
  return { description: 'A problem', content: { 'application/problem+json': { schema: ProblemDocument } } };
}
