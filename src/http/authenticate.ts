import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type Clients, unauthenticated } from '../clients/clients.ts';
import type { Listeners } from './listeners.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The client that asks; empty on the routes that need none. */
    client: string;
  }
  interface FastifyContextConfig {
    /** Answered without credentials. */
    open?: boolean;
  }
}

/** Browsers cannot set headers on a WebSocket, so the token may come as a subprotocol (as Kubernetes has it). */
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.waitd.';

/** Names the client of every request, before anything else is looked at. */
export function authenticate(app: FastifyInstance, clients: Clients, listeners: () => Listeners): void {
  app.decorateRequest('client', '');
  app.addHook('onRequest', async (request) => {
    if (request.routeOptions.config.open === true) return;
    request.client = clients.identify(listeners().peerOf(request.raw.socket), bearerToken(request));
  });
}

function bearerToken({ headers }: FastifyRequest): string | null {
  if (headers.authorization !== undefined) {
    const match = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i.exec(headers.authorization);
    if (match === null) throw unauthenticated('Only Authorization: Bearer <token> is understood.');
    return match[1]!;
  }
  const offered = protocolsOf(headers['sec-websocket-protocol']).find((name) => name.startsWith(TOKEN_PROTOCOL));
  return offered === undefined ? null : Buffer.from(offered.slice(TOKEN_PROTOCOL.length), 'base64url').toString();
}

/** The subprotocols that a WebSocket client offers. */
export function protocolsOf(header: string | undefined): string[] {
  return (header ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}
