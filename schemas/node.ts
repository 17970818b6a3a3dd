import { z } from 'zod';

export const Health = z
  .object({
    status: z.enum(['ok', 'failing']).meta({ description: 'Whether all checks passed.' }),
    checks: z
      .record(z.string(), z.string())
      .meta({ description: 'Each check by its name: `ok`, or what is wrong.', examples: [{ journal: 'ok' }] }),
  })
  .meta({
    id: 'Health',
    description: 'The state of the daemon.',
    examples: [{ status: 'ok', checks: { journal: 'ok', output: 'ok' } }],
  });

const cursor = (description: string) => z.int().min(0).meta({ description });
const most = (description: string) => z.int().min(0).meta({ description });

export const NodeView = z
  .object({
    node: z.string().meta({ description: 'The id of this daemon and its journal.' }),
    version: z.string().meta({ description: 'The version of waitd.', examples: ['0.1.0'] }),
    kernel: z
      .object({
        release: z.string().meta({ description: 'The release of the kernel, as uname(2) gives it.' }),
        features: z
          .record(z.string(), z.boolean())
          .meta({ description: 'The features of pidfds by name, and whether this kernel has each.' }),
      })
      .meta({ title: 'Kernel', description: 'The kernel of this machine.' }),
    bootId: z.string().meta({ description: 'The id of this boot of the machine.' }),
    pid: z.int().meta({ description: 'The process id of the daemon.' }),
    subreaper: z.boolean().meta({ description: 'Whether the daemon adopts the orphans among its descendants.' }),
    head: cursor('The cursor of the newest event.'),
    oldest: cursor('The cursor of the oldest event that is kept.'),
    limits: z
      .object({
        descriptors: most('The most open file descriptors.'),
        bodyBytes: most('The largest request body, in bytes.'),
        headerBytes: most('The longest request line and headers together, in bytes.'),
        urlBytes: most('The longest URL, in bytes.'),
        frameBytes: most('The largest WebSocket frame from a client, in bytes.'),
        headersTimeoutMs: most('How long the headers of a request may take, in milliseconds.'),
        requestTimeoutMs: most('How long a whole request may take to arrive, in milliseconds.'),
        keepAliveTimeoutMs: most('How long a connection may stay open without a request, in milliseconds.'),
        unauthenticatedConnections: most('The most open connections without an authenticated request.'),
        socketBufferBytes: most('How much of an event stream is buffered for a slow reader, in bytes.'),
        events: most('The most events that are kept.'),
        keys: most('The most idempotency keys that are kept.'),
        outputBytes: most('How much of each captured stream is kept, in bytes.'),
        keepCollectedMs: most('How long a handle is kept after its status was collected, in milliseconds.'),
        keepUncollectedMs: most('How long a handle is kept if its status is not collected, in milliseconds.'),
        keepEventsMs: most('How long an event is kept, in milliseconds.'),
        keepKeysMs: most('How long an idempotency key is kept, in milliseconds.'),
      })
      .meta({ title: 'Limits', description: 'The limits of this daemon.' }),
  })
  .meta({
    id: 'Node',
    description: 'This daemon, its kernel and its limits.',
    examples: [
      {
        node: 'n_4rT1c0Zc',
        version: '0.1.0',
        kernel: { release: '6.12.0', features: { nonblocking: true } },
        bootId: '6d5fba6e-2f83-4d3c-9d80-36f5a5b41df0',
        pid: 812,
        subreaper: true,
        head: 17,
        oldest: 1,
        limits: {
          descriptors: 524288,
          bodyBytes: 4194304,
          headerBytes: 65536,
          urlBytes: 49152,
          frameBytes: 131072,
          headersTimeoutMs: 10000,
          requestTimeoutMs: 60000,
          keepAliveTimeoutMs: 75000,
          unauthenticatedConnections: 131072,
          socketBufferBytes: 1048576,
          events: 1000000,
          keys: 100000,
          outputBytes: 67108864,
          keepCollectedMs: 3600000,
          keepUncollectedMs: 604800000,
          keepEventsMs: 604800000,
          keepKeysMs: 86400000,
        },
      },
    ],
  });
export type NodeView = z.infer<typeof NodeView>;
