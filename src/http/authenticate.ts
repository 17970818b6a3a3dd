import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Rules } from '../api/operation.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import { type Clients, unauthenticated } from '../clients/clients.ts';
import type { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Check } from './checks.ts';
import { trackInFlightRequests } from './in-flight-requests.ts';
import type { Listeners } from './listeners.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The client that sent the request. Not set on routes that need no credentials. */
    client: Client;
  }
  interface FastifyContextConfig {
    /** Whether the route needs no credentials. */
    open?: boolean;
    /** The right that a client must have. */
    needs?: 'metrics';
    /** The operation of the route, with its rules. */
    operation?: Rules;
  }
}

/** The prefix of a subprotocol that carries a token, because browsers cannot set headers on a WebSocket (as in Kubernetes). */
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.waitd.';

/** Authenticates every request, and checks its rate limit and the rights of its operation. */
export function authenticate(app: FastifyInstance, clients: Clients, listeners: () => Listeners): Check {
  const onConnection = new WeakMap<Socket, Counted>();
  trackInFlightRequests(app, clients);
  app.decorateRequest('client', null as unknown as Client);
  app.addHook('onRoute', (route) => {
    const permit = route.config?.operation?.permit;
    if (permit === undefined) return;
    const before = [route.preValidation ?? []].flat();
    route.preValidation = [
      (request, _reply, done) => {
        permit(request.client, request.body);
        done();
      },
      ...before,
    ];
  });
  return (request, _reply, { open, needs }) => {
    if (open === true) return;
    const { socket } = request.raw;
    const credentials = { peer: listeners().peerOf(socket), token: bearerToken(request) };
    const client = clients.identify(credentials.peer, credentials.token);
    listeners().noteAuthenticated(socket);
    request.client = client;
    request.credentials = credentials;
    if (onConnection.get(socket)?.client !== client) countConnection(onConnection, socket, client);
    client.requests.take(client.quotas.requestsPerSecond);
    if (needs !== undefined && !client.rights[needs]) throw notAllowed(`read the ${needs}`);
  };
}

/** The client whose quota of connections a connection uses. */
interface Counted {
  client: Client;
  reservation: Reservation;
}

/** Counts a connection for the client that used it last. */
function countConnection(onConnection: WeakMap<Socket, Counted>, socket: Socket, client: Client): void {
  let reservation: Reservation;
  try {
    reservation = client.reserve('connections');
  } catch (error) {
    // The refused client must not keep the connection open.
    throw error instanceof Problem ? error.with({ connection: 'close' }) : error;
  }
  const before = onConnection.get(socket);
  onConnection.set(socket, { client, reservation });
  if (before === undefined) socket.once('close', () => onConnection.get(socket)!.reservation[Symbol.dispose]());
  else before.reservation[Symbol.dispose]();
}

function bearerToken({ headers }: FastifyRequest): string | null {
  const tokens = [...tokensOfHeader(headers.authorization), ...tokensOfProtocols(headers['sec-websocket-protocol'])];
  // The daemon must not guess which of several tokens counts.
  if (tokens.length > 1) throw unauthenticated('The request has several tokens. Send one.');
  return tokens[0] ?? null;
}

function tokensOfHeader(authorization: string | undefined): string[] {
  if (authorization === undefined) return [];
  const match = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i.exec(authorization);
  if (match === null)
    throw unauthenticated('The Authorization header is not a bearer token. Send Authorization: Bearer <token>.');
  return [match[1]!];
}

function tokensOfProtocols(protocols: string | undefined): string[] {
  if (protocols === undefined) return [];
  return protocols
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name.startsWith(TOKEN_PROTOCOL))
    .map((name) => Buffer.from(name.slice(TOKEN_PROTOCOL.length), 'base64url').toString());
}
