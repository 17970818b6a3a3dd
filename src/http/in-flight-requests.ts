import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { AuditFacts, Call } from '../api/operation.ts';
import type { Client } from '../clients/client.ts';
import type { Clients, Peer } from '../clients/clients.ts';
import type { Claim } from '../idempotency/idempotency-keys.ts';
import { untilClosed } from './until-closed.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The credentials that the request was authenticated with; `null` on routes that need none. */
    credentials: Credentials | null;
  }
  interface FastifyInstance {
    inFlightRequests: InFlightRequests;
  }
}

export interface Credentials {
  peer: Peer;
  token: string | null;
}

interface InFlightRequest {
  client: Client;
  /** Whether the client could see the handles of others when the request came. */
  sawAll: boolean;
  credentials: Credentials;
  /** Closes the connection. */
  end(): void;
}

/** The requests that wait for something. Each is ended when its credentials are revoked. */
export class InFlightRequests {
  readonly #clients: Clients;
  readonly #requests = new Set<InFlightRequest>();

  constructor(clients: Clients) {
    this.#clients = clients;
    clients.onChange(() => {
      for (const request of this.#requests) if (!this.#isValid(request)) request.end();
    });
  }

  /**
   * Adds a request.
   * @param end closes its connection
   * @returns a function that removes it, to be called when it has been answered
   */
  add({ client, credentials }: FastifyRequest, end: () => void): () => void {
    const request = { client, sawAll: client.seesAll, credentials: credentials!, end };
    this.#requests.add(request);
    return () => this.#requests.delete(request);
  }

  #isValid({ client, sawAll, credentials: { peer, token } }: InFlightRequest): boolean {
    try {
      return this.#clients.identify(peer, token) === client && (client.seesAll || !sawAll);
    } catch {
      return false;
    }
  }
}

/**
 * The call of one request. Its abort signal is created on first use, because most requests are answered at once. It is a class,
 * because V8 gives each object literal with getters its own hidden class.
 */
class RequestCall implements Call {
  readonly #request: FastifyRequest;
  readonly #reply: FastifyReply;
  #abortSignal: AbortSignal | null = null;

  constructor(request: FastifyRequest, reply: FastifyReply) {
    this.#request = request;
    this.#reply = reply;
  }

  get client(): Client {
    return this.#request.client;
  }

  get claim(): Claim | undefined {
    return this.#request.claim;
  }

  get abortSignal(): AbortSignal {
    this.#abortSignal ??= makeAbortSignal(this.#request, this.#reply);
    return this.#abortSignal;
  }

  answered(): Promise<void> {
    return new Promise((resolve) => untilClosed(this.#reply.raw, { [Symbol.dispose]: resolve }));
  }

  note(facts: AuditFacts): void {
    this.#request.audited = { ...this.#request.audited, ...facts };
  }
}

/** Returns the call of an operation that a request makes. */
export function callOf(request: FastifyRequest, reply: FastifyReply): Call {
  return new RequestCall(request, reply);
}

function makeAbortSignal(request: FastifyRequest, { raw }: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const leave = request.server.inFlightRequests.add(request, () => raw.destroy());
  // On the response, not the request: a request also "closes" when its body has been read.
  raw.once('close', () => {
    leave();
    if (!raw.writableFinished) controller.abort();
  });
  if (raw.destroyed) {
    leave();
    controller.abort();
  }
  return controller.signal;
}

/** Adds the set of in-flight requests to the application. */
export function trackInFlightRequests(app: FastifyInstance, clients: Clients): void {
  app.decorate('inFlightRequests', new InFlightRequests(clients));
  app.decorateRequest('credentials', null);
}
