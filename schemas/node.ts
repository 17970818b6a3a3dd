import { z } from 'zod';

export const Health = z
  .object({ status: z.enum(['ok', 'failing']), checks: z.record(z.string(), z.string()) })
  .meta({ id: 'Health', examples: [{ status: 'ok', checks: { journal: 'ok' } }] });

export const NodeView = z
  .object({
    node: z.string(),
    version: z.string(),
    kernel: z.object({ release: z.string(), features: z.record(z.string(), z.boolean()) }),
    bootId: z.string(),
    pid: z.int(),
    subreaper: z.boolean(),
    head: z.int(),
    oldest: z.int(),
    limits: z.object({
      descriptors: z.int(),
      bodyBytes: z.int(),
      headerBytes: z.int(),
      urlBytes: z.int(),
      frameBytes: z.int(),
      headersTimeoutMs: z.int(),
      requestTimeoutMs: z.int(),
      keepAliveTimeoutMs: z.int(),
      unauthenticatedConnections: z.int(),
      socketBufferBytes: z.int(),
      events: z.int(),
      keys: z.int(),
      outputBytes: z.int(),
      keepCollectedMs: z.int(),
      keepUncollectedMs: z.int(),
      keepEventsMs: z.int(),
      keepKeysMs: z.int(),
    }),
  })
  .meta({ id: 'Node', description: 'This daemon: what it is and what it can do here.' });
export type NodeView = z.infer<typeof NodeView>;
