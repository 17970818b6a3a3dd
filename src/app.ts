import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import websocket from '@fastify/websocket';
import fastify, { type FastifyBaseLogger } from 'fastify';
import { validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Logger } from 'pino';
import { attachRoutes } from '../routes/attach.ts';
import { eventRoutes } from '../routes/events.ts';
import { handleRoutes } from '../routes/handles.ts';
import { inputRoutes } from '../routes/input.ts';
import { nodeRoutes } from '../routes/node.ts';
import { outputRoutes } from '../routes/output.ts';
import { problemRoutes } from '../routes/problems.ts';
import { signalRoutes } from '../routes/signals.ts';
import { waitRoutes } from '../routes/waits.ts';
import { watchRoutes } from '../routes/watches.ts';
import type { Daemon } from './daemon.ts';
import type { App } from './http/app-type.ts';
import { audit, auditWatches } from './http/audit.ts';
import { authenticate } from './http/authenticate.ts';
import { readBodies, refuseBody } from './http/bodies.ts';
import { answerPreflight, asPages, originCheck } from './http/browsers.ts';
import { inOrder } from './http/checks.ts';
import { chosenSubprotocol, endRefusedUpgrade, guard, meetsUpgrade, refuseUnknown } from './http/guard.ts';
import { idempotency } from './http/idempotency.ts';
import {
  BODY_LIMIT,
  FRAME_LIMIT,
  HEADERS_LIMIT,
  HEADERS_TIMEOUT_MS,
  KEEP_ALIVE_TIMEOUT_MS,
  REQUEST_TIMEOUT_MS,
  TIMEOUTS_CHECK_MS,
} from './http/limits.ts';
import { Listeners } from './http/listeners.ts';
import { oneAtATime } from './http/one-at-a-time.ts';
import { openApiDocument } from './http/openapi.ts';
import { answerProblems, errorHandler, refuseOddities, refuseUnparsed } from './http/problems.ts';
import { parseQuery, refuseQueries } from './http/query.ts';
import { requestId } from './http/request-id.ts';
import { peerByTls, tlsServer } from './http/tls.ts';
import { version } from './version.ts';

/**
 * Builds the HTTP application. Each request passes in this order: id, audit, Origin, guard (Host, URL, upgrade), credentials, path,
 * body, schema, route.
 * @param auditLog `null` if the audit is off
 */
export async function build(
  daemon: Daemon,
  logger: FastifyBaseLogger,
  auditLog: Logger | null,
): Promise<{ app: App; listeners: Listeners }> {
  const app: App = fastify({
    // From the start, or Fastify would load Ajv first. Its types know no other; answers are built by typed code and checked against
    // their schemas in the tests, not again for every client.
    schemaController: {
      compilersFactory: { buildValidator: () => validatorFor as never, buildSerializer: () => () => JSON.stringify },
    },
    genReqId: requestId,
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    return503OnClosing: false,
    routerOptions: { querystringParser: parseQuery, ignoreTrailingSlash: false, maxParamLength: 200 },
    http: {
      maxHeaderSize: HEADERS_LIMIT,
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUTS_CHECK_MS,
      // Otherwise Node.js keeps the first of two equal headers and drops the other, which a proxy may have checked instead.
      joinDuplicateHeaders: true,
      // Otherwise Node.js answers a missing Host itself, without a problem document.
      requireHostHeader: false,
      shouldUpgradeCallback: meetsUpgrade,
    },
    clientErrorHandler: refuseUnparsed,
    frameworkErrors: errorHandler(logger),
  }).withTypeProvider<ZodTypeProvider>();
  let listeners: Listeners | undefined;
  const theListeners = (): Listeners => listeners!;

  app.setErrorHandler(errorHandler(logger));
  readBodies(app);
  refuseQueries(app);
  answerProblems(app);
  auditWatches(daemon.watches, auditLog);
  const checks = [
    endRefusedUpgrade,
    ...audit(app, auditLog, theListeners),
    originCheck(daemon.config.allowedOrigins, theListeners),
    guard(daemon.config.allowedHosts, theListeners),
    answerPreflight,
    authenticate(app, daemon.clients, theListeners),
    refuseUnknown(app),
    refuseBody,
  ];
  app.addHook('onRequest', inOrder(...checks));
  idempotency(app, daemon.idempotencyKeys, daemon.outputAnswers);
  // Made for the first client that asks: it would make every start longer.
  let document: string | null = null;
  const documentText = (): string => {
    document ??= JSON.stringify(openApiDocument(version));
    return document;
  };
  const onDemand = { toJSON: () => JSON.parse(documentText()) };
  await app.register(swagger, { mode: 'static', specification: { document: onDemand as never } });
  await app.register(async (docs) => {
    asPages(docs);
    // A browser cannot send a token for a page. What the API looks like is no secret.
    docs.addHook('onRoute', (route) => {
      route.config = { ...route.config, open: true };
    });
    // Its other layout has the name and the logo of the viewer, and a style sheet that the policy for pages refuses.
    const uiConfig = { layout: 'BaseLayout' };
    await docs.register(swaggerUi, { routePrefix: '/docs', theme: { title: 'waitd' }, uiConfig });
  });

  handleRoutes(app, daemon);
  waitRoutes(app, daemon);
  signalRoutes(app, daemon);
  // In its own plugin, because its hooks would otherwise run for every request.
  await app.register(async (sockets: App) => {
    await sockets.register(websocket, {
      options: {
        maxPayload: FRAME_LIMIT,
        perMessageDeflate: false,
        // ws ends a socket on which too many automatic pongs are queued.
        autoPong: false,
        handleProtocols: chosenSubprotocol,
      },
      // Every socket was closed with the feed.
      preClose: (done: () => void) => done(),
      errorHandler: (error: Error) => logger.debug({ err: error }, 'WebSocket error'),
    });
    eventRoutes(sockets, daemon);
    attachRoutes(sockets, daemon, logger);
  });
  outputRoutes(app, daemon);
  inputRoutes(app, daemon);
  watchRoutes(app, daemon);
  nodeRoutes(app, daemon);
  problemRoutes(app);
  app.get('/openapi.json', { config: { open: true }, schema: { hide: true } }, (_request, reply) => {
    reply.type('application/json; charset=utf-8').send(documentText());
  });

  await app.ready();
  refuseOddities(app.server);
  oneAtATime(app.server);
  const { tls: files } = daemon.config;
  listeners = new Listeners({
    http: app.server,
    descriptors: daemon.descriptors,
    tls: files === null ? null : tlsServer(files, logger),
    peerByTls: (socket) => peerByTls(socket, logger),
  });
  return { app, listeners };
}

/** Wraps the validator: Fastify passes null for a missing part, but defaults of zod apply only to undefined. */
const validatorFor: typeof validatorCompiler = (route) => {
  const validate = validatorCompiler(route);
  return (data) => validate(data ?? undefined);
};
