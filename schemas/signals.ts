import { z } from 'zod';
import { durationMs, signal } from './common.ts';
import { GRACE_MS } from './vocabulary.ts';

export const Signal = z
  .strictObject({
    signal,
    scope: z.enum(['process', 'group', 'tree']).default('process').meta({
      description:
        'What gets the signal: the process, the process group that it leads, or the process and all its descendants.',
    }),
  })
  .meta({ id: 'Signal', description: 'A signal to send.', examples: [{ signal: 'SIGTERM', scope: 'process' }] });
export type Signal = z.output<typeof Signal>;

export const Terminate = z
  .strictObject({
    graceMs: durationMs
      .default(GRACE_MS)
      .meta({ description: 'The time between SIGTERM and SIGKILL, in milliseconds.' }),
  })
  .default({ graceMs: GRACE_MS })
  .meta({ id: 'Terminate', description: 'How long to wait before SIGKILL.', examples: [{ graceMs: 5000 }] });
export type Terminate = z.output<typeof Terminate>;
