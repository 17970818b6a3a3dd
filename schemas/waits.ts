import { z } from 'zod';
import { durationMs, handleId, Outcome, Retry, Rusage, Siginfo, StopEvent } from './common.ts';
import { waitOptions } from './vocabulary.ts';

export const Waitid = z
  .strictObject({
    options: z.array(z.enum(waitOptions)).max(16).default(['WEXITED']),
    timeoutMs: durationMs.optional(),
  })
  .default({ options: ['WEXITED'] })
  .meta({ id: 'Waitid', examples: [{ options: ['WEXITED'], timeoutMs: 30000 }] });

export const WaitidResult = z
  .object({
    handle: handleId,
    siginfo: Siginfo.nullable(),
    outcome: z.union([Outcome, StopEvent]).nullable(),
    rusage: Rusage.nullable(),
    timedOut: z.literal(true).optional(),
    retry: Retry.optional(),
  })
  .meta({
    id: 'WaitidResult',
    examples: [
      {
        handle: 'h_3q2-7wEBAgMEBQYHCAkKCw',
        siginfo: { signo: 'SIGCHLD', code: 'CLD_EXITED', pid: 4711, uid: 0, status: 7 },
        outcome: { reason: 'exited', exitCode: 7 },
        rusage: {
          userUs: 1021,
          systemUs: 800,
          maxRssKiB: 3200,
          minorFaults: 88,
          majorFaults: 0,
          inBlocks: 0,
          outBlocks: 0,
          voluntarySwitches: 1,
          involuntarySwitches: 0,
        },
      },
    ],
  });
export type WaitidResult = z.infer<typeof WaitidResult>;

export const Poll = z
  .strictObject({
    handles: z
      .array(handleId)
      .min(1)
      .max(10000)
      .refine((ids) => new Set(ids).size === ids.length, 'name each handle once'),
    for: z.enum(['ended', 'outcome']).default('ended'),
    until: z.union([z.enum(['any', 'all']), z.int().min(1)]).default('any'),
    timeoutMs: durationMs.optional(),
  })
  .meta({ id: 'Poll', examples: [{ handles: ['h_1', 'h_2'], for: 'ended', until: 'any', timeoutMs: 30000 }] });

export type Poll = z.output<typeof Poll>;

export const PollResult = z
  .object({
    ready: z.array(
      z.object({ handle: handleId, revents: z.array(z.enum(['POLLIN', 'POLLHUP'])), outcome: Outcome.nullable() }),
    ),
    pending: z.array(handleId),
    timedOut: z.boolean(),
  })
  .meta({
    id: 'PollResult',
    examples: [
      {
        ready: [{ handle: 'h_1', revents: ['POLLIN', 'POLLHUP'], outcome: { reason: 'exited', exitCode: 0 } }],
        pending: ['h_2'],
        timedOut: false,
      },
    ],
  });
export type PollResult = z.infer<typeof PollResult>;
