import { z } from 'zod';

export const OutputQuery = z.strictObject({
  follow: z
    .union([z.literal(0), z.literal(1)])
    .default(0)
    .meta({
      description:
        'With 1, the answer goes on until the process has ended and all is read, or until no writer is left.',
    }),
  tail: z.int().min(0).max(100_000).optional().meta({ description: 'Only so many lines from the end.' }),
});

export const OutputBytes = z.string().meta({ format: 'binary', description: 'The bytes that the process wrote.' });

/** The query of the operations whose answer may include captured output. */
export const WithOutput = z.strictObject({
  output: z
    .int()
    .min(1)
    .max(1_048_576)
    .optional()
    .meta({ description: 'Adds the last so many bytes of each captured stream to the answer.' }),
});

export type WithOutput = z.output<typeof WithOutput>;

export const StreamTail = z
  .object({
    text: z
      .string()
      .optional()
      .meta({ description: 'The bytes as text, if they are UTF-8. Else `base64` is present instead.' }),
    base64: z.string().optional().meta({ description: 'The bytes in Base64, if they are not UTF-8.' }),
    offset: z.int().min(0).meta({ description: 'Where the bytes begin, counted from the beginning of the stream.' }),
    size: z.int().min(0).meta({ description: 'How many bytes the stream has so far.' }),
    truncated: z.boolean().meta({ description: 'Whether the stream has bytes before these.' }),
  })
  .meta({
    id: 'StreamTail',
    description:
      'The last bytes of a captured stream. Text begins and ends with whole characters: one that is cut at the front, or not complete yet, is left out.',
    examples: [
      { text: 'done\n', offset: 807, size: 812, truncated: true },
      { base64: '/w==', offset: 0, size: 1, truncated: false },
    ],
  });
export type StreamTail = z.infer<typeof StreamTail>;

const stream = (name: string) =>
  StreamTail.nullable().meta({ description: `The end of ${name}. Null if it was not captured, or cannot be read.` });

export const OutputTails = z
  .object({
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    complete: z.boolean().meta({
      description:
        'Whether every captured stream has ended and nothing can follow. False while a process can still write to one, and if one cannot be read.',
    }),
  })
  .meta({
    id: 'OutputTails',
    description: 'The end of the captured output of a process.',
    examples: [{ stdout: { text: 'done\n', offset: 0, size: 5, truncated: false }, stderr: null, complete: true }],
  });
export type OutputTails = z.infer<typeof OutputTails>;
