import type { FastifyInstance, FastifyRequest } from 'fastify';
import { requestHeaders, responseHeaders } from '../../schemas/headers.ts';
import { operations } from '../../schemas/operations.ts';
import { Problem } from '../errors/problem.ts';
import type { Check } from './checks.ts';
import type { Listeners } from './listeners.ts';

/** The headers of answers that a page of another origin may read, beside those that CORS lets it read anyway. */
const EXPOSED = Object.keys(responseHeaders).sort().join(', ');

/** The same for every path, be it there or not: nobody has shown yet who is asking. */
const PREFLIGHT = {
  'access-control-allow-methods': [...new Set(operations.map(({ method }) => method)), 'HEAD'].join(', '),
  'access-control-allow-headers': ['Authorization', 'Content-Type', ...Object.keys(requestHeaders), 'X-Request-Id']
    .sort()
    .join(', '),
  'access-control-max-age': '600',
};

/** For pages, which the API has none of but its documentation: nothing from elsewhere, in nobody's frame. */
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

/** What browsers alone send of their own accord, also where they send no Origin: a page's GET from its own server. */
const BROWSERS_HEADERS = ['sec-fetch-site', 'sec-fetch-dest', 'sec-fetch-user', 'referer'];

/**
 * Whose pages may call: those that were served from here, and those listed. A browser says of every call from elsewhere, and of
 * every WebSocket, where its page is from (RFC 6454 7.3); a refusal comes before anything is done.
 *
 * No browser connects to a Unix socket: what one sent was passed on by a proxy, whose uid would then speak for every page. So there
 * only listed origins may call, and without an Origin the Host must be that of a listed one, unless a token tells who asks.
 */
export function originCheck(allowed: readonly string[], listeners: () => Listeners): Check {
  return (request, reply) => {
    const { origin } = request.headers;
    // The answer to the one is no answer to the other.
    if (allowed.length > 0) reply.header('vary', 'Origin');
    const isUnix = listeners().isUnix(request.raw.socket);
    if (isUnix && origin === undefined) requireNoPage(request, allowed);
    if (origin === undefined || (!isUnix && isOwn(request, origin))) return;
    if (!allowed.includes(origin))
      throw new Problem('EPERM', 'Pages of this origin may not call: start with --allowed-origin.');
    reply.headers({ 'access-control-allow-origin': origin, 'access-control-expose-headers': EXPOSED });
  };
}

/** @throws {Problem} EPERM for what a proxy passes on from a browser's page that is not listed */
function requireNoPage({ headers }: FastifyRequest, allowed: readonly string[]): void {
  if (headers.authorization !== undefined || BROWSERS_HEADERS.every((name) => headers[name] === undefined)) return;
  const { host } = headers;
  if (
    host !== undefined &&
    allowed.some((origin) => URL.canParse(origin) && new URL(origin).host === host.toLowerCase())
  )
    return;
  const detail =
    'A browser’s request came to this Unix socket through a proxy: present a token, or start with --allowed-origin.';
  throw new Problem('EPERM', detail);
}

function isOwn({ protocol, headers }: FastifyRequest, origin: string): boolean {
  if (headers.host === undefined) return false;
  const own = `${protocol}://${headers.host}`;
  // As a browser writes an origin: without the default port.
  return origin === own || (URL.canParse(own) && origin === new URL(own).origin);
}

/** A browser asks before it makes a call that no form could make. It asks without credentials, and learns nothing but that. */
export const answerPreflight: Check = (request, reply) => {
  if (!isPreflight(request) || !reply.hasHeader('access-control-allow-origin')) return undefined;
  reply.code(204).headers(PREFLIGHT).send();
  return 'answered';
};

function isPreflight({ method, headers }: FastifyRequest): boolean {
  return method === 'OPTIONS' && headers['access-control-request-method'] !== undefined;
}

/** For routes that serve pages. At the end of each, since files are sent with a caching of their own. */
export function asPages(app: FastifyInstance): void {
  app.addHook('onSend', (_request, reply, payload, done) => {
    reply.headers(PAGE);
    done(null, payload);
  });
}
