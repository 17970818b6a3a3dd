import type { IncomingMessage } from 'node:http';
import { isIPv4, isIPv6 } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Problem } from '../errors/problem.ts';
import { protocolsOf } from './authenticate.ts';
import { URL_LIMIT } from './limits.ts';
import type { Listeners } from './listeners.ts';
import type { Look } from './passing.ts';
import { answerDueOn, sendProblem, usualHeaders } from './problems.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answered even over the last descriptors. */
    health?: boolean;
  }
}

export const SUBPROTOCOL = 'waitd.v1';
export const EVENTS_PATH = '/v1/events';

/** What HTTP asks of every request and answer, before any route sees it. */
export function guard(allowedHosts: readonly string[], listeners: () => Listeners): Look {
  return (request, reply, config) => {
    reply.headers(usualHeaders(request.id));
    if (listeners().draining) reply.header('connection', 'close');
    if (request.raw.url!.length > URL_LIMIT)
      throw new Problem('EPROTO', `The URL is over ${URL_LIMIT} bytes.`, { status: 414 });
    checkTarget(request);
    const peer = listeners().peerOf(request.raw.socket);
    if (peer === 'tcp' || 'certificate' in peer) checkHost(request.headers.host, allowedHosts);
    if (config.health !== true && listeners().isOneOfTheLast(request.raw.socket)) throw outOfDescriptors();
    if (asksForWebSocket(request.raw)) checkUpgrade(request);
  };
}

function asksForWebSocket({ headers: { upgrade } }: IncomingMessage): boolean {
  return upgrade !== undefined && upgrade.toLowerCase() === 'websocket';
}

/**
 * Whether an upgrade is met. Anywhere else it is an ordinary request, and refused as one; and before the answers that are due it
 * cannot be met, so it is ignored, as RFC 9110 7.8 allows, and answered in its turn.
 */
export function meetsUpgrade(request: IncomingMessage): boolean {
  const isForEvents = request.method === 'GET' && request.url!.split('?', 1)[0] === EVENTS_PATH;
  if (!isForEvents || !asksForWebSocket(request) || answerDueOn(request.socket) !== null) return false;
  upgrading.add(request);
  return true;
}

/** From then on nobody reads their connections but the WebSocket that they may become. */
const upgrading = new WeakSet<IncomingMessage>();

/** A connection whose upgrade comes to an answer ends with that. */
export const endRefusedUpgrade: Look = ({ raw: request }, reply) => {
  if (!upgrading.has(request)) return undefined;
  reply.header('connection', 'close');
  reply.raw.once('finish', () => request.socket.destroy());
  return undefined;
};

/** The connection goes with its answer: it is one of those that are kept back. */
function outOfDescriptors(): Problem {
  return new Problem('EMFILE', 'The daemon is out of descriptors: end connections and handles that nobody needs.', {
    retry: { afterMs: 1000 },
    headers: { connection: 'close' },
  });
}

/** A proxy that trusts the one and a server that trusts the other would not mean the same host (RFC 9112 3.2.2). */
function checkTarget({ raw, headers }: FastifyRequest): void {
  if (raw.url!.startsWith('/')) return;
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(raw.url!);
  if (absolute !== null && absolute[1]!.toLowerCase() !== headers.host?.toLowerCase())
    throw new Problem('EPROTO', 'The host in the URL and the Host header are not the same.', { status: 400 });
}

/** A name, an IPv4 address, or an IPv6 address in brackets; and perhaps a port (RFC 9110 7.2). No user, and not two of them. */
const HOST = /^(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{0,5})?$/;

/**
 * A web page can make a browser call a name of its own that resolves to this machine (DNS rebinding); it cannot make it
 * send another Host.
 */
function checkHost(host: string | undefined, allowedHosts: readonly string[]): void {
  if (host === undefined) throw new Problem('EPROTO', 'HTTP/1.1 asks for a Host header.', { status: 400 });
  const match = HOST.exec(host.toLowerCase());
  if (match === null)
    throw new Problem('EPROTO', 'The Host header must be one host and perhaps a port.', { status: 400 });
  const [, address = '', name = ''] = match;
  if (isIPv6(address) || isIPv4(name) || name === 'localhost' || allowedHosts.includes(name)) return;
  const detail = 'This Host is not served: use an IP address or localhost, or start with --allowed-host.';
  throw new Problem('EPERM', detail, { status: 421 });
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
