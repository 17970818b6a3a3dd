import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Caller } from '../clients/caller.ts';
import type { Client } from '../clients/client.ts';
import type { Clients, Peer } from '../clients/clients.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the client showed. */
    credentials: Credentials | null;
  }
  interface FastifyInstance {
    callers: Callers;
  }
}

export interface Credentials {
  peer: Peer;
  token: string | null;
}

/** One that is being answered for longer than a moment. */
interface Answered {
  client: Client;
  sawAll: boolean;
  credentials: Credentials;
  /** Ends its connection. */
  end(): void;
}

/** Those that are being answered: each stays only while its credentials hold. */
export class Callers {
  readonly #clients: Clients;
  readonly #answered = new Set<Answered>();

  constructor(clients: Clients) {
    this.#clients = clients;
    clients.onChange = () => {
      for (const answered of this.#answered) if (!this.#holds(answered)) answered.end();
    };
  }

  /** @returns to be called when it is over */
  add({ client, credentials }: FastifyRequest, end: () => void): () => void {
    const answered = { client, sawAll: client.seesAll, credentials: credentials!, end };
    this.#answered.add(answered);
    return () => this.#answered.delete(answered);
  }

  #holds({ client, sawAll, credentials: { peer, token } }: Answered): boolean {
    try {
      return this.#clients.identify(peer, token) === client && (client.seesAll || !sawAll);
    } catch {
      return false;
    }
  }
}

/**
 * Who waits for the answer to a request. It is looked after from when somebody asks whether it is gone: most are answered at
 * once. A class, since an object with a getter of its own has a hidden class of its own, too.
 */
class Waiting implements Caller {
  readonly #request: FastifyRequest;
  readonly #reply: FastifyReply;
  #gone: AbortSignal | null = null;

  constructor(request: FastifyRequest, reply: FastifyReply) {
    this.#request = request;
    this.#reply = reply;
  }

  get client(): Client {
    return this.#request.client;
  }

  get gone(): AbortSignal {
    this.#gone ??= goneSignal(this.#request, this.#reply);
    return this.#gone;
  }
}

export function callerOf(request: FastifyRequest, reply: FastifyReply): Caller {
  return new Waiting(request, reply);
}

function goneSignal(request: FastifyRequest, { raw }: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const leave = request.server.callers.add(request, () => raw.destroy());
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

export function keepCallers(app: FastifyInstance, clients: Clients): void {
  app.decorate('callers', new Callers(clients));
  app.decorateRequest('credentials', null);
}
