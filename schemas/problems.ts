import { z } from 'zod';

export const ProblemParams = z.object({
  errno: z
    .string()
    .max(100)
    .meta({ description: 'The name of an error in Linux.', examples: ['EAGAIN'] }),
});
