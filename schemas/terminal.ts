import { z } from 'zod';

/** The most that the kernel stores (struct winsize). */
const MOST_CELLS = 65535;

export const WindowSize = z
  .strictObject({
    rows: z.int().min(1).max(MOST_CELLS).meta({ description: 'The height in lines.' }),
    cols: z.int().min(1).max(MOST_CELLS).meta({ description: 'The width in characters.' }),
  })
  .meta({ id: 'WindowSize', description: 'The size of a terminal.', examples: [{ rows: 24, cols: 80 }] });
export type WindowSize = z.output<typeof WindowSize>;
