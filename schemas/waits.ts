import { z } from 'zod';
import {
  durationMs,
  handleId,
  handleRef,
  Outcome,
  Retry,
  Rusage,
  rusageExample,
  Siginfo,
  StopEvent,
} from './common.ts';
import { OutputTails } from './output.ts';
import { waitOptions } from './vocabulary.ts';

export const Waitid = z
  .strictObject({
    options: z
      .array(z.enum(waitOptions))
      .max(16)
      .default(['WEXITED'])
      .meta({ description: 'The options of waitid(2). One of WEXITED, WSTOPPED and WCONTINUED must be among them.' }),
    timeoutMs: durationMs
      .optional()
      .meta({ description: 'How long to wait, in milliseconds. By default without a limit.' }),
  })
  .default({ options: ['WEXITED'] })
  .meta({ id: 'Waitid', description: 'What to wait for.', examples: [{ options: ['WEXITED'], timeoutMs: 30000 }] });

export const WaitidResult = z
  .object({
    handle: handleId,
    siginfo: Siginfo.nullable().meta({ description: 'What waitid(2) returned. Null if nothing was to report.' }),
    outcome: z
      .union([Outcome, StopEvent])
      .nullable()
      .meta({ description: 'How the process ended, stopped or continued. Null if nothing was to report.' }),
    rusage: Rusage.nullable().meta({ description: 'What the process used. Null if it is not known.' }),
    timedOut: z.literal(true).optional().meta({ description: 'Present if `timeoutMs` passed first.' }),
    retry: Retry.optional(),
    output: OutputTails.optional(),
  })
  .meta({
    id: 'WaitidResult',
    description: 'What a wait has found.',
    examples: [
      {
        handle: 'h_3q2-7wEBAgMEBQYHCAkKCw',
        siginfo: { signo: 'SIGCHLD', code: 'CLD_EXITED', pid: 4711, uid: 0, status: 7 },
        outcome: { reason: 'exited', exitCode: 7 },
        rusage: rusageExample,
      },
    ],
  });
export type WaitidResult = z.infer<typeof WaitidResult>;

export const Poll = z
  .strictObject({
    handles: z
      .array(handleRef)
      .min(1)
      .max(10000)
      .refine((ids) => new Set(ids).size === ids.length, 'name each handle once')
      .meta({ description: 'The ids of the handles, each once.', uniqueItems: true }),
    for: z.enum(['ended', 'outcome', 'settled']).default('ended').meta({
      description:
        'What to wait for: the process has ended (POLLIN); its outcome is known (POLLHUP for a foreign process); or it is settled: it has ended, and nothing that it started is left as far as the daemon can know. `settled` is for children of the daemon only.',
    }),
    until: z
      .union([z.enum(['any', 'all']), z.int().min(1)])
      .default('any')
      .meta({ description: 'How many handles must be ready: any, all, or a number.' }),
    timeoutMs: durationMs
      .optional()
      .meta({ description: 'How long to wait, in milliseconds. By default without a limit.' }),
  })
  .meta({
    id: 'Poll',
    description: 'Handles to wait for.',
    examples: [{ handles: ['h_1', 'h_2'], for: 'ended', until: 'any', timeoutMs: 30000 }],
  });

export type Poll = z.output<typeof Poll>;

export const PollResult = z
  .object({
    ready: z
      .array(
        z
          .object({
            handle: handleId,
            revents: z
              .array(z.enum(['POLLIN', 'POLLHUP']))
              .meta({ description: '`POLLIN`: the process has ended. `POLLHUP`: it is also reaped.' }),
            outcome: Outcome.nullable().meta({ description: 'How the process ended. Null if it is not known yet.' }),
          })
          .meta({ title: 'ReadyHandle' }),
      )
      .meta({ description: 'The handles that are ready.' }),
    pending: z.array(handleId).meta({ description: 'The ids of the handles that are not ready.' }),
    timedOut: z.boolean().meta({ description: 'Whether `timeoutMs` passed first.' }),
  })
  .meta({
    id: 'PollResult',
    description: 'The handles that are ready, and the others.',
    examples: [
      {
        ready: [{ handle: 'h_1', revents: ['POLLIN', 'POLLHUP'], outcome: { reason: 'exited', exitCode: 0 } }],
        pending: ['h_2'],
        timedOut: false,
      },
    ],
  });
export type PollResult = z.infer<typeof PollResult>;
