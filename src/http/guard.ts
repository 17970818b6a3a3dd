import type { IncomingMessage } from 'node:http';
import { isIPv4, isIPv6 } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Problem } from '../errors/problem.ts';
import { protocolsOf } from './authenticate.ts';
import type { Check } from './checks.ts';
import { URL_LIMIT } from './limits.ts';
import type { Listeners } from './listeners.ts';
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
export function guard(allowedHosts: readonly string[], listeners: () => Listeners): Check {
  return (request, reply, config) => {
    reply.headers(usualHeaders(request.id));
    if (listeners().draining) reply.header('connection', 'close');
    if (request.raw.url!.length > URL_LIMIT)
      throw new Problem('EPROTO', `The URL is over ${URL_LIMIT} bytes: name many handles in frames.`, { status: 414 });
    checkTarget(request);
    const peer = listeners().peerOf(request.raw.socket);
    if (peer === 'tcp' || 'certificate' in peer) checkHost(request.raw, allowedHosts);
    if (config.health !== true && listeners().isOneOfTheLast(request.raw.socket)) throw outOfDescriptors();
    checkPreconditions(request);
    if (asksForWebSocket(request.raw)) checkUpgrade(request);
    else if (isStrippedUpgrade(request)) throw notUpgraded(request.raw);
  };
}

/** Nothing here has an entity tag, so no precondition that names one can hold (RFC 9110 13.1). */
function checkPreconditions({ method, headers }: FastifyRequest): void {
  const { 'if-match': match, 'if-none-match': noneMatch } = headers;
  const isRead = method === 'GET' || method === 'HEAD';
  if ((match === undefined || match.trim() === '*') && (isRead || noneMatch?.trim() !== '*')) return;
  const detail =
    'The precondition does not hold: leave out If-Match and If-None-Match, since nothing here has an ETag.';
  throw new Problem('EPROTO', detail, { status: 412 });
}

function asksForWebSocket({ headers: { upgrade } }: Pick<IncomingMessage, 'headers'>): boolean {
  return upgrade !== undefined && upgrade.toLowerCase() === 'websocket';
}

/**
 * Whether an upgrade is met. Anywhere else it is an ordinary request, and refused as one; and before the answers that are due it
 * cannot be met, so it is ignored, as RFC 9110 7.8 allows, and answered in its turn.
 */
export function meetsUpgrade(request: IncomingMessage): boolean {
  const isForEvents = request.method === 'GET' && pathOf(request.url!) === EVENTS_PATH;
  if (!isForEvents || !asksForWebSocket(request) || answerDueOn(request.socket) !== null) return false;
  if (missingOf(request).length > 0) return false;
  upgrading.add(request);
  return true;
}

/** From then on nobody reads their connections but the WebSocket that they may become. */
const upgrading = new WeakSet<IncomingMessage>();

/** The headers of an upgrade that go from one hop to the next alone (RFC 9110 7.6.1), so that a proxy has to add them anew. */
function missingOf({ httpVersion, headers }: IncomingMessage): string[] {
  const options = (headers.connection ?? '').split(',').map((option) => option.trim().toLowerCase());
  return [
    ...(httpVersion === '1.1' ? [] : ['HTTP/1.1']),
    ...(asksForWebSocket({ headers }) ? [] : ['Upgrade: websocket']),
    ...(options.includes('upgrade') ? [] : ['Connection: Upgrade']),
  ];
}

/** Whether a client has asked for a WebSocket by the headers that a proxy passes on, and not by those that it does not. */
function isStrippedUpgrade({ method, headers, routeOptions }: FastifyRequest): boolean {
  const isAsked = headers['sec-websocket-key'] !== undefined || headers['sec-websocket-version'] !== undefined;
  return isAsked && method === 'GET' && routeOptions.url === EVENTS_PATH;
}

function notUpgraded(request: IncomingMessage): Problem {
  const missing = missingOf(request).join(' and ');
  const detail = `This is no upgrade to a WebSocket: ${missing} is missing. Have the proxy in between pass it on.`;
  return new Problem('EPROTO', detail, { status: 426, headers: { upgrade: 'websocket', connection: 'upgrade' } });
}

/** A connection whose upgrade comes to an answer ends with that. */
export const endRefusedUpgrade: Check = ({ raw: request }, reply) => {
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
  if (!isWellFormed(raw.url!)) throw new Problem('EPROTO', 'The URL is not well-formed.', { status: 400 });
  const authority = authorityOf(raw.url!);
  if (authority !== null && headers.host !== undefined && authority !== headers.host.toLowerCase())
    throw new Problem('EPROTO', 'The host in the URL and the Host header are not the same.', { status: 400 });
}

/** Whether a target is ASCII, and its escapes are of UTF-8: anything else would be replaced by other characters. */
function isWellFormed(target: string): boolean {
  if (!/^[\x21-\x7e]*$/.test(target)) return false;
  if (!target.includes('%')) return true;
  try {
    decodeURIComponent(target);
    return true;
  } catch {
    return false;
  }
}

const ABSOLUTE = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i;

/** The host of a target in absolute form, as a client of a proxy sends it (RFC 9112 3.2.2). */
function authorityOf(target: string): string | null {
  return target.startsWith('/') ? null : (ABSOLUTE.exec(target)?.[1]?.toLowerCase() ?? null);
}

function pathOf(target: string): string {
  return target.replace(ABSOLUTE, '').split('?', 1)[0]!;
}

/** A name, an IPv4 address, or an IPv6 address in brackets; and perhaps a port (RFC 9110 7.2). No user, and not two of them. */
const HOST = /^(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{0,5})?$/;

/**
 * A web page can make a browser call a name of its own that resolves to this machine (DNS rebinding); it cannot make it
 * send another Host.
 */
function checkHost({ httpVersion, headers, url }: IncomingMessage, allowedHosts: readonly string[]): void {
  const host = headers.host ?? authorityOf(url!);
  // No browser speaks HTTP/1.0, which has no Host: health checks do.
  if (host === null && httpVersion === '1.0') return;
  if (host === null || (headers.host === undefined && httpVersion !== '1.0'))
    throw new Problem('EPROTO', 'HTTP/1.1 asks for a Host header.', { status: 400 });
  const match = HOST.exec(host.toLowerCase());
  if (match === null)
    throw new Problem('EPROTO', 'The Host header must be one host and perhaps a port.', { status: 400 });
  const [, address = '', name = ''] = match;
  if (isIPv6(address) || isIPv4(name) || name === 'localhost' || allowedHosts.includes(name)) return;
  const detail = 'This Host is not served: use an IP address or localhost, or start with --allowed-host.';
  throw new Problem('EPERM', detail, { status: 421 });
}

function checkUpgrade({ raw, headers, routeOptions }: FastifyRequest): void {
  if (routeOptions.url !== EVENTS_PATH)
    throw new Problem('EPROTO', `Only ${EVENTS_PATH} speaks WebSocket.`, { status: 400 });
  if (missingOf(raw).length > 0) throw notUpgraded(raw);
  if (headers['sec-websocket-version'] !== '13')
    throw new Problem('EPROTO', 'Only version 13 of WebSocket is spoken.', {
      status: 426,
      headers: { 'sec-websocket-version': '13', upgrade: 'websocket', connection: 'upgrade' },
    });
  if (!/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? ''))
    throw new Problem('EPROTO', 'Sec-WebSocket-Key must be 16 bytes in base64.', { status: 400 });
  const offered = protocolsOf(headers['sec-websocket-protocol']);
  if (new Set(offered).size < offered.length || !offered.every((name) => TOKEN.test(name)))
    throw new Problem('EINVAL', 'Sec-WebSocket-Protocol must be a list of tokens, none of them twice.');
  if (offered.length > 0 && !offered.includes(SUBPROTOCOL))
    throw new Problem('EINVAL', `Offer the subprotocol ${SUBPROTOCOL}, or none.`);
}

/** A token of HTTP (RFC 9110 5.6.2). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** 404 and 405, before any body is looked at. The paths are collected as they are registered. */
export function refuseUnknown(app: FastifyInstance): Check {
  const routes = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const methods = routes.get(url) ?? new Set();
    for (const name of [method].flat()) methods.add(name);
    routes.set(url, methods);
  });
  const refusalOf = (request: FastifyRequest): Problem => {
    const path = pathOf(request.raw.url!);
    const allowed = [...routes].find(([url]) => matches(url, path))?.[1];
    if (allowed === undefined) {
      const isKnown = path.endsWith('/') && [...routes.keys()].some((url) => matches(url, path.slice(0, -1)));
      const cure = isKnown ? 'leave out the last slash' : 'see /openapi.json';
      return new Problem('EPROTO', `There is no such path: ${cure}.`, { status: 404 });
    }
    const allow = [...allowed].join(', ');
    return new Problem('EPROTO', `This path takes ${allow}.`, { status: 405, headers: { allow } });
  };
  app.setNotFoundHandler((request, reply) => sendProblem(reply, refusalOf(request)));
  return (request) => {
    // The router takes an empty segment for a parameter.
    if (request.is404 || Object.values(request.params as Record<string, string>).includes('')) throw refusalOf(request);
    return undefined;
  };
}

function matches(route: string, path: string): boolean {
  const wanted = route.split('/');
  const given = path.split('/');
  return (
    wanted.length === given.length &&
    wanted.every((part, at) => (part.startsWith(':') ? given[at] !== '' : part === given[at]))
  );
}
