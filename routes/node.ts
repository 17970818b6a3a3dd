import { release } from 'node:os';
import type { Filled } from '../schemas/filled.ts';
import type { NodeView } from '../schemas/node.ts';
import * as contract from '../schemas/operations/node.ts';
import type { Daemon } from '../src/daemon.ts';
import { KEEP_KEYS_MS } from '../src/handles/retention.ts';
import type { App } from '../src/http/app-type.ts';
import {
  BODY_LIMIT,
  FRAME_LIMIT,
  HEADERS_LIMIT,
  HEADERS_TIMEOUT_MS,
  KEEP_ALIVE_TIMEOUT_MS,
  maxUnauthenticated,
  REQUEST_TIMEOUT_MS,
  URL_LIMIT,
} from '../src/http/limits.ts';
import { Metrics } from '../src/metrics.ts';
import { version } from '../src/version.ts';

/** The note in /readyz if this image's start found the journal damaged or restored. The daemon is ready nevertheless. */
const historyLost = {
  damaged: 'lost: the journal was damaged or removed, and a new one was begun',
  restored: 'lost in part: the state directory was restored from a backup or copied',
};

/** Registers the routes about the daemon itself: probes, metrics and the node. */
export function nodeRoutes(app: App, daemon: Daemon): void {
  const { config, features, journal } = daemon;
  const metrics = new Metrics(daemon);

  app.get('/livez', {
    config: { open: true, health: true },
    schema: contract.getLiveness,
    handler: (_request, reply) => {
      reply.send({ status: 'ok', checks: {} });
    },
  });

  app.get('/readyz', {
    config: { open: true, health: true },
    schema: contract.getReadiness,
    handler: (_request, reply) => {
      const checks = { journal: checkOf(journal.check()), output: checkOf(daemon.outputs.fault) };
      const { lastNotice } = journal;
      const history = lastNotice === null ? {} : { history: historyLost[lastNotice.what] };
      const ok = Object.values(checks).every((check) => check === 'ok');
      reply.code(ok ? 200 : 503).send({ status: ok ? 'ok' : 'failing', checks: { ...checks, ...history } });
    },
  });

  app.get('/metrics', {
    config: { health: true, needs: 'metrics' },
    schema: contract.getMetrics,
    handler: async (_request, reply) =>
      reply
        .type(metrics.contentType)
        .serializer(String)
        .send(await metrics.text()),
  });

  app.get('/v1/node', {
    schema: contract.getNode,
    handler: (_request, reply) => {
      const body: Filled<NodeView> = {
        node: journal.node,
        version,
        kernel: { release: release(), features: { ...features } },
        bootId: journal.bootId,
        pid: process.pid,
        subreaper: config.subreaper || process.pid === 1,
        head: journal.head,
        oldest: journal.oldest,
        limits: {
          descriptors: daemon.descriptors,
          bodyBytes: BODY_LIMIT,
          headerBytes: HEADERS_LIMIT,
          urlBytes: URL_LIMIT,
          frameBytes: FRAME_LIMIT,
          headersTimeoutMs: HEADERS_TIMEOUT_MS,
          requestTimeoutMs: REQUEST_TIMEOUT_MS,
          keepAliveTimeoutMs: KEEP_ALIVE_TIMEOUT_MS,
          unauthenticatedConnections: maxUnauthenticated(daemon.descriptors),
          socketBufferBytes: config.socketBuffer,
          events: config.maxEvents,
          keys: config.maxKeys,
          outputBytes: config.maxOutput,
          keepCollectedMs: config.keep.collected,
          keepUncollectedMs: config.keep.uncollected,
          keepEventsMs: config.keep.events,
          keepKeysMs: KEEP_KEYS_MS,
        },
      };
      reply.send(body);
    },
  });
}

const checkOf = (fault: Error | null): string => (fault === null ? 'ok' : `cannot be written: ${fault.message}`);
