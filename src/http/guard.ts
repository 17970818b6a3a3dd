import type { IncomingMessage } from 'node:http';
import { isIPv4, isIPv6 } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Problem } from '../errors/problem.ts';
import type { Check } from './checks.ts';
import { URL_LIMIT } from './limits.ts';
import type { Listeners } from './listeners.ts';
import { answerDueOn, sendProblem, usualHeaders } from './problems.ts';
import { webSocketAt, webSocketPaths } from './web-sockets.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route is answered even on one of the last descriptors. */
    health?: boolean;
  }
}

/** Checks the rules of HTTP for every request, and sets the usual headers of every answer. */
export function guard(allowedHosts: readonly string[], listeners: () => Listeners): Check {
  return (request, reply, config) => {
    reply.headers(usualHeaders(request.id));
    if (listeners().draining) reply.header('connection', 'close');
    if (request.raw.url!.length > URL_LIMIT)
      throw new Problem('EPROTO', `The URL exceeds ${URL_LIMIT} bytes. Subscribe to many handles with frames.`, {
        status: 414,
      });
    checkTarget(request);
    const peer = listeners().peerOf(request.raw.socket);
    if (peer === 'tcp' || 'certificate' in peer) checkHost(request.raw, allowedHosts);
    if (config.health !== true && listeners().isOnReservedDescriptor(request.raw.socket)) throw outOfDescriptors();
    checkPreconditions(request);
    if (asksForWebSocket(request.raw)) checkUpgrade(request);
    else if (isStrippedUpgrade(request)) throw notUpgraded(request.raw);
  };
}

/** Refuses preconditions that name an entity tag, because no resource has one (RFC 9110 13.1). */
function checkPreconditions({ method, headers }: FastifyRequest): void {
  const { 'if-match': match, 'if-none-match': noneMatch } = headers;
  const isRead = method === 'GET' || method === 'HEAD';
  if ((match === undefined || match.trim() === '*') && (isRead || noneMatch?.trim() !== '*')) return;
  const detail = 'The precondition fails, because no resource has an ETag. Leave out If-Match and If-None-Match.';
  throw new Problem('EPROTO', detail, { status: 412 });
}

function asksForWebSocket({ headers: { upgrade } }: Pick<IncomingMessage, 'headers'>): boolean {
  return upgrade !== undefined && upgrade.toLowerCase() === 'websocket';
}

/**
 * Reports whether the server accepts an upgrade. On other paths the request is handled as an ordinary one and refused. While an
 * earlier answer is due on the connection, the upgrade is ignored, as RFC 9110 7.8 allows.
 */
export function meetsUpgrade(request: IncomingMessage): boolean {
  const isForSocket = request.method === 'GET' && webSocketAt(pathOf(request.url!)) !== undefined;
  if (!isForSocket || !asksForWebSocket(request) || answerDueOn(request.socket) !== null) return false;
  if (missingOf(request).length > 0) return false;
  upgrading.add(request);
  return true;
}

/** Requests whose upgrade was accepted. Node.js no longer reads their connections. */
const upgrading = new WeakSet<IncomingMessage>();

/** Lists the missing hop-by-hop parts of an upgrade, which a proxy must add itself (RFC 9110 7.6.1). */
function missingOf({ httpVersion, headers }: IncomingMessage): string[] {
  const options = (headers.connection ?? '').split(',').map((option) => option.trim().toLowerCase());
  return [
    ...(httpVersion === '1.1' ? [] : ['HTTP/1.1']),
    ...(asksForWebSocket({ headers }) ? [] : ['Upgrade: websocket']),
    ...(options.includes('upgrade') ? [] : ['Connection: Upgrade']),
  ];
}

/** Reports whether a proxy has forwarded an upgrade without its hop-by-hop headers. */
function isStrippedUpgrade({ method, headers, routeOptions }: FastifyRequest): boolean {
  const isAsked = headers['sec-websocket-key'] !== undefined || headers['sec-websocket-version'] !== undefined;
  return isAsked && method === 'GET' && webSocketPaths.some(({ url }) => url === routeOptions.url);
}

/** Builds the refusal of a request that is no complete WebSocket upgrade. */
export function notUpgraded(request: IncomingMessage): Problem {
  const missing = missingOf(request).join(' and ');
  const detail = `The WebSocket upgrade lacks ${missing}. Configure the proxy in front to forward upgrades.`;
  return new Problem('EPROTO', detail, { status: 426, headers: { upgrade: 'websocket', connection: 'upgrade' } });
}

/** Closes the connection after the answer to a refused upgrade, because Node.js no longer reads it. */
export const endRefusedUpgrade: Check = ({ raw: request }, reply) => {
  if (!upgrading.has(request)) return undefined;
  reply.header('connection', 'close');
  reply.raw.once('finish', () => request.socket.destroy());
  return undefined;
};

/** Builds the refusal on one of the reserved descriptors. It closes the connection to release the descriptor. */
function outOfDescriptors(): Problem {
  return new Problem(
    'EMFILE',
    'The daemon is out of descriptors. Close connections and handles that are not needed, then retry.',
    {
      retry: { afterMs: 1000 },
      headers: { connection: 'close' },
    },
  );
}

/** Refuses a URL and a Host that differ: a proxy and the daemon could each trust a different one (RFC 9112 3.2.2). */
function checkTarget({ raw, headers }: FastifyRequest): void {
  if (!isWellFormed(raw.url!))
    throw new Problem('EPROTO', 'The URL is not well-formed. Use ASCII, and escape other characters as UTF-8.', {
      status: 400,
    });
  const authority = authorityOf(raw.url!);
  if (authority !== null && headers.host !== undefined && authority !== headers.host.toLowerCase())
    throw new Problem('EPROTO', 'The host in the URL differs from the Host header. Send the same host in both.', {
      status: 400,
    });
}

/** Reports whether a target is ASCII with escapes of valid UTF-8. Other characters would be replaced when it is decoded. */
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

/** Returns the host of a target in absolute form, as a proxy's client sends it (RFC 9112 3.2.2). */
function authorityOf(target: string): string | null {
  return target.startsWith('/') ? null : (ABSOLUTE.exec(target)?.[1]?.toLowerCase() ?? null);
}

function pathOf(target: string): string {
  return target.replace(ABSOLUTE, '').split('?', 1)[0]!;
}

/** A name, an IPv4 address or an IPv6 address in brackets, with an optional port (RFC 9110 7.2). Neither a user nor two hosts. */
const HOST = /^(?:\[([\da-f:.]+)\]|([\w.-]+))(?::\d{0,5})?$/;

/**
 * Protects TCP against DNS rebinding. A web page can make its host name resolve to this machine, but it cannot make the browser send
 * another Host.
 */
function checkHost({ httpVersion, headers, url }: IncomingMessage, allowedHosts: readonly string[]): void {
  const host = headers.host ?? authorityOf(url!);
  // HTTP/1.0 has no Host. Health checks use it, and no browser does.
  if (host === null && httpVersion === '1.0') return;
  if (host === null || (headers.host === undefined && httpVersion !== '1.0'))
    throw new Problem('EPROTO', 'The Host header is missing. HTTP/1.1 requires it.', { status: 400 });
  const match = HOST.exec(host.toLowerCase());
  if (match === null)
    throw new Problem('EPROTO', 'The Host header is not valid. Send one host with an optional port.', { status: 400 });
  const [, address = '', name = ''] = match;
  if (isIPv6(address) || isIPv4(name) || name === 'localhost' || allowedHosts.includes(name)) return;
  const detail =
    'The daemon does not serve this Host. Use an IP address or localhost, or start it with --allowed-host.';
  throw new Problem('EPERM', detail, { status: 421 });
}

function checkUpgrade({ raw, headers, method }: FastifyRequest): void {
  const webSocket = webSocketAt(pathOf(raw.url!));
  if (webSocket === undefined) {
    const paths = webSocketPaths.map(({ path }) => path).join(' or ');
    throw new Problem('EPROTO', `This path has no WebSocket. Use ${paths}.`, { status: 400 });
  }
  if (method !== 'GET') return; // refused with 405
  if (missingOf(raw).length > 0) throw notUpgraded(raw);
  if (headers['sec-websocket-version'] !== '13')
    throw new Problem('EPROTO', 'The WebSocket version is not supported. Use version 13.', {
      status: 426,
      headers: { 'sec-websocket-version': '13', upgrade: 'websocket', connection: 'upgrade' },
    });
  if (!/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? ''))
    throw new Problem('EPROTO', 'Sec-WebSocket-Key must be 16 bytes in base64.', { status: 400 });
  const header = headers['sec-websocket-protocol'];
  const offered = header === undefined ? [] : header.split(',').map((name) => name.trim());
  if (new Set(offered).size < offered.length || !offered.every((name) => TOKEN.test(name)))
    throw new Problem('EINVAL', 'Sec-WebSocket-Protocol must be a list of tokens without duplicates.');
  const { subprotocol } = webSocket;
  if (offered.length > 0 && !offered.includes(subprotocol))
    throw new Problem('EINVAL', `None of the offered subprotocols is supported. Offer ${subprotocol}, or none.`);
}

/** Returns the subprotocol for the answer to an upgrade; false for none. */
export function chosenSubprotocol(offered: ReadonlySet<string>, { url }: IncomingMessage): string | false {
  const subprotocol = webSocketAt(pathOf(url!))?.subprotocol;
  return subprotocol !== undefined && offered.has(subprotocol) ? subprotocol : false;
}

/** A token of HTTP (RFC 9110 5.6.2). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** Answers 404 and 405 before any body is read. Collects the paths as the routes are registered. */
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
      const cure = isKnown ? 'Remove the trailing slash.' : 'See /openapi.json for all paths.';
      return new Problem('EPROTO', `The path does not exist. ${cure}`, { status: 404 });
    }
    const allow = [...allowed].join(', ');
    return new Problem('EPROTO', `The path does not support this method. Use ${allow}.`, {
      status: 405,
      headers: { allow },
    });
  };
  app.setNotFoundHandler((request, reply) => sendProblem(reply, refusalOf(request)));
  return (request) => {
    // The router accepts an empty segment as a parameter.
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
