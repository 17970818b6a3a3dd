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
