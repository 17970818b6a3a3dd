import type { FastifyInstance, FastifyRequest } from 'fastify';
import { requestHeaders, responseHeaders } from '../../schemas/headers.ts';
import { operations } from '../../schemas/operations.ts';
import { Problem } from '../errors/problem.ts';
import type { Check } from './checks.ts';
import type { Listeners } from './listeners.ts';

/** The headers of answers that a page of another origin may read, besides those that CORS always allows. */
const EXPOSED = Object.keys(responseHeaders).sort().join(', ');

/** The same for every path, because a preflight has no credentials and must not reveal which paths exist. */
const PREFLIGHT = {
  'access-control-allow-methods': [...new Set(operations.map(({ method }) => method)), 'HEAD'].join(', '),
  'access-control-allow-headers': ['Authorization', 'Content-Type', ...Object.keys(requestHeaders), 'X-Request-Id']
    .sort()
    .join(', '),
  'access-control-max-age': '600',
};

/** The headers of pages, which are only the API's documentation: no foreign content, and no embedding in frames. */
const PAGE = {
  'cache-control': 'no-store',
  'content-security-policy': [
    "default-src 'none'",
    "connect-src 'self'",
    "font-src 'self' data:",
    "img-src 'self' data:",
    "script-src 'self'",
    "style-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

/** Headers that only browsers send by default, even without an Origin, as for a GET from the page's own server. */
const BROWSERS_HEADERS = ['sec-fetch-site', 'sec-fetch-dest', 'sec-fetch-user', 'referer'];

/**
 * Admits web pages of the daemon's own origin and of the allowed ones. A browser sends the Origin of the page with every cross-origin
 * request and every WebSocket (RFC 6454 7.3). A refusal precedes any effect of the request.
 *
 * Browsers cannot connect to a Unix socket. A browser's request on one came through a proxy, and the proxy's uid would authenticate
 * every page. So only allowed origins may call there. Without an Origin, the Host must belong to an allowed one, unless a token
 * authenticates the client.
 */
export function originCheck(allowed: readonly string[], listeners: () => Listeners): Check {
  return (request, reply) => {
    const { origin } = request.headers;
    // Caches must not reuse an answer for another origin.
    if (allowed.length > 0) reply.header('vary', 'Origin');
    const isUnix = listeners().isUnix(request.raw.socket);
    if (isUnix && origin === undefined) requireNoPage(request, allowed);
    if (origin === undefined || (!isUnix && isOwn(request, origin))) return;
    if (!allowed.includes(origin))
      throw new Problem('EPERM', 'Web pages of this origin may not call the daemon. Start it with --allowed-origin.');
    reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': EXPOSED });
  };
}

/** @throws {Problem} EPERM for a request that a proxy forwards from a browser, if its page is not of an allowed origin */
function requireNoPage({ headers }: FastifyRequest, allowed: readonly string[]): void {
  if (headers.authorization !== undefined || BROWSERS_HEADERS.every((name) => headers[name] === undefined)) return;
  const { host } = headers;
  if (
    host !== undefined &&
    allowed.some((origin) => URL.canParse(origin) && new URL(origin).host === host.toLowerCase())
  )
    return;
  const detail =
    'A proxy forwarded a browser’s request to this Unix socket. Send a token, or start the daemon with --allowed-origin.';
  throw new Problem('EPERM', detail);
}

function isOwn({ protocol, headers }: FastifyRequest, origin: string): boolean {
  if (headers.host === undefined) return false;
  const own = `${protocol}://${headers.host}`;
  // A browser omits the default port of an origin.
  return origin === own || (URL.canParse(own) && origin === new URL(own).origin);
}

/** Answers a CORS preflight, which a browser sends without credentials before a request that no HTML form could make. */
export const answerPreflight: Check = (request, reply) => {
  if (!isPreflight(request) || !reply.hasHeader('access-control-allow-origin')) return undefined;
  reply.code(204).headers(PREFLIGHT).send();
  return 'answered';
};

function isPreflight({ method, headers }: FastifyRequest): boolean {
  return method === 'OPTIONS' && headers['access-control-request-method'] !== undefined;
}

/** Sets the headers of pages on all routes of a plugin. In onSend, because the file server sets its own caching before. */
export function asPages(app: FastifyInstance): void {
  app.addHook('onSend', (_request, reply, payload, done) => {
    reply.headers(PAGE);
    done(null, payload);
  });
}
