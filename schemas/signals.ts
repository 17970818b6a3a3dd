import { z } from 'zod';
import { durationMs, signal } from './common.ts';

export const Signal = z
  .strictObject({ signal, scope: z.enum(['process', 'group', 'tree']).default('process') })
  .meta({ id: 'Signal', examples: [{ signal: 'SIGTERM', scope: 'process' }] });
export type Signal = z.output<typeof Signal>;

export const Terminate = z
  .strictObject({ graceMs: durationMs.default(5000) })
  .default({ graceMs: 5000 })
  .meta({ id: 'Terminate', examples: [{ graceMs: 5000 }] });
export type Terminate = z.output<typeof Terminate>;
