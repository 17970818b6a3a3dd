import { z } from 'zod';

export const OutputQuery = z.strictObject({
  follow: z
    .union([z.literal(0), z.literal(1)])
    .default(0)
    .meta({ description: '1: goes on until the process has ended and all is read, or nobody can write any more' }),
  tail: z.int().min(0).max(100_000).optional().meta({ description: 'Only the last lines' }),
});

export const OutputBytes = z.string().meta({ description: 'The bytes' });
