import { isIP } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Problem } from '../errors/problem.ts';
import { protocolsOf } from './authenticate.ts';
import type { Listeners } from './listeners.ts';
import { sendProblem } from './problems.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answered even over the last descriptors. */
    health?: boolean;
  }
}

/** Longer ones are no URL of ours. */
export const LONGEST_URL = 8192;
export const SUBPROTOCOL = 'waitd.v1';
export const EVENTS_PATH = '/v1/events';

/** What HTTP asks of every request and answer, before any route sees it. */
export function guard(app: FastifyInstance, allowedHosts: readonly string[], listeners: () => Listeners): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.headers({ 'cache-control': 'no-store', 'x-request-id': request.id });
    if (listeners().draining) reply.header('connection', 'close');
    if (request.raw.url!.length > LONGEST_URL)
      throw new Problem('EPROTO', `The URL is over ${LONGEST_URL} bytes.`, { status: 414 });
    if (listeners().peerOf(request.raw.socket) === 'tcp') checkHost(request.headers.host, allowedHosts);
    if (listeners().isOneOfTheLast(request.raw.socket) && request.routeOptions.config.health !== true)
      throw outOfDescriptors();
    if (request.ws) checkUpgrade(request);
  });
}

/** The connection goes with its answer: it is one of those that are kept back. */
function outOfDescriptors(): Problem {
  return new Problem('EMFILE', 'The daemon is out of descriptors: end connections and handles that nobody needs.', {
    retry: { afterMs: 1000 },
    headers: { connection: 'close' },
  });
}

/**
 * A web page can make a browser call a name of its own that resolves to this machine (DNS rebinding); it cannot make it
 * send another Host.
 */
function checkHost(host: string | undefined, allowedHosts: readonly string[]): void {
  if (host === undefined) throw new Problem('EPROTO', 'HTTP/1.1 asks for a Host header.', { status: 400 });
  const name = host.toLowerCase().replace(/:\d+$/, '');
  const isAddress = isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0;
  if (!isAddress && name !== 'localhost' && !allowedHosts.includes(name))
    throw new Problem(
      'EPERM',
      'This Host is not served: use an IP address or localhost, or start with --allowed-host.',
      {
        status: 421,
      },
    );
}

function checkUpgrade({ headers, routeOptions }: FastifyRequest): void {
  if (routeOptions.url !== EVENTS_PATH)
    throw new Problem('EPROTO', `Only ${EVENTS_PATH} speaks WebSocket.`, { status: 400 });
  if (headers['sec-websocket-version'] !== '13')
    throw new Problem('EPROTO', 'Only version 13 of WebSocket is spoken.', {
      status: 426,
      headers: { 'sec-websocket-version': '13', upgrade: 'websocket', connection: 'upgrade' },
    });
  if (!/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? ''))
    throw new Problem('EPROTO', 'Sec-WebSocket-Key must be 16 bytes in base64.', { status: 400 });
  const offered = protocolsOf(headers['sec-websocket-protocol']);
  if (offered.length > 0 && !offered.includes(SUBPROTOCOL))
    throw new Problem('EINVAL', `Offer the subprotocol ${SUBPROTOCOL}, or none.`);
}

/** 404 and 405. The paths are collected as they are registered. */
export function refuseUnknown(app: FastifyInstance): void {
  const routes = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const methods = routes.get(url) ?? new Set();
    for (const name of [method].flat()) methods.add(name);
    routes.set(url, methods);
  });
  app.setNotFoundHandler((request: FastifyRequest, reply: FastifyReply) => {
    const path = request.raw.url!.split('?', 1)[0]!;
    const allowed = [...routes].find(([url]) => matches(url, path))?.[1];
    if (allowed === undefined) {
      sendProblem(reply, new Problem('EPROTO', 'There is no such path: see /openapi.json.', { status: 404 }));
      return;
    }
    const allow = [...allowed].join(', ');
    const detail = `This path takes ${allow}.`;
    sendProblem(reply, new Problem('EPROTO', detail, { status: 405, headers: { allow } }));
  });
}

function matches(route: string, path: string): boolean {
  const wanted = route.split('/');
  const given = path.split('/');
  return wanted.length === given.length && wanted.every((part, at) => part.startsWith(':') || part === given[at]);
}
