import { z } from 'zod';
import { durationMs } from './common.ts';

export const InputQuery = z.strictObject({
  timeoutMs: durationMs.optional().meta({
    description:
      'How long to wait until everything is accepted, in milliseconds. By default without a limit. The answer says how much was.',
  }),
  flags: z.literal('MSG_DONTWAIT').optional().meta({
    description: 'With `MSG_DONTWAIT` a blocking handle answers as a nonblocking one: it accepts what fits.',
  }),
  eof: z
    .enum(['true', 'false'])
    .default('false')
    .meta({ description: 'Whether to close the input after the last byte. A terminal gets its EOF character.' }),
});
export type InputQuery = z.output<typeof InputQuery>;

export const InputBytes = z.string().meta({ format: 'binary', description: 'The bytes for the process.' });

export const Accepted = z
  .object({
    accepted: z.int().min(0).meta({ description: 'How many bytes the pipe or the terminal has taken.' }),
    eof: z.literal(false).optional().meta({
      description:
        'Present if everything was accepted, but not the EOF character: the terminal had no room for it, or its programs have disabled it.',
    }),
  })
  .meta({ id: 'Accepted', description: 'What a write has achieved.', examples: [{ accepted: 4096 }] });
export type Accepted = z.infer<typeof Accepted>;
