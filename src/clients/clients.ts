import { Problem } from '../errors/problem.ts';
import { Listeners } from '../model/listeners.ts';
import { Client } from './client.ts';
import type { Entry, Policy } from './policy.ts';
import type { Quotas } from './quotas.ts';
import { unlimited } from './rights.ts';
import { hashOf, Tokens } from './tokens.ts';

/**
 * The peer of a connection: a user on a Unix socket, the holder of a client certificate on TLS, or an unknown peer on TCP. `certificate`
 * is `null` if the certificate has no valid name.
 */
export type Peer = { uid: number; needsToken?: boolean } | { certificate: string | null } | 'tcp';

export interface ClientsParts {
  tokens: Tokens;
  /** Whether TCP clients without credentials are admitted, as `anonymous`. */
  anonymousTcp: boolean;
  /** `null` gives every authenticated client all rights on its own handles. */
  policy: Policy | null;
}

const noRights: Entry['rights'] = {
  open: 'none',
  spawn: false,
  signal: false,
  input: false,
  observe: false,
  admin: false,
  metrics: false,
};

/** Authenticates clients, and gives them the rights and quotas of the policy. */
export class Clients {
  readonly #tokens: Tokens;
  readonly #anonymousTcp: boolean;
  readonly #ownUid = process.getuid!();
  readonly #byName = new Map<string, Client>();
  #policy: Policy | null;
  #policyTokens = new Tokens();
  readonly #changed = new Listeners();

  constructor({ tokens, anonymousTcp, policy }: ClientsParts) {
    this.#tokens = tokens;
    this.#anonymousTcp = anonymousTcp;
    this.#policy = policy;
    if (policy !== null) this.#policyTokens = tokensOf(policy);
  }

  /** Puts a policy in force, also for the clients that are already connected. */
  apply(policy: Policy): void {
    this.#policy = policy;
    this.#policyTokens = tokensOf(policy);
    for (const [name, client] of this.#byName) {
      const entry = this.#entryOf(name);
      if (entry === null) this.#byName.delete(name);
      client.rights = entry?.rights ?? noRights;
      client.quotas = entry?.quotas ?? {};
    }
    this.#changed.emit();
  }

  /**
   * Subscribes to policy changes. A client that was admitted before may be refused after one.
   * @returns a function that ends the subscription
   */
  onChange(listener: () => void): () => void {
    return this.#changed.on(listener);
  }

  /**
   * Authenticates a request. A wrong token is an error; the peer is never used instead.
   * @param token the bearer token, or `null` if the request has none
   * @throws {Problem} EACCES for a wrong token, or for a missing one if the peer needs a token; EPERM if the policy refuses the client
   */
  identify(peer: Peer, token: string | null): Client {
    const name = this.#nameOf(peer, token);
    const client = this.find(name);
    if (client === null)
      throw new Problem('EPERM', `The policy does not admit ${name}. Ask the operator of this daemon.`);
    return client;
  }

  /** Finds a client by name. @returns `null` if the policy refuses it */
  find(name: string): Client | null {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const entry = this.#entryOf(name);
    if (entry === null) return null;
    const client = new Client(name, entry.rights, entry.quotas);
    this.#byName.set(name, client);
    return client;
  }

  /** Returns the quotas of a client, even if it has sent no request yet. */
  quotasOf(name: string): Quotas {
    return this.#entryOf(name)?.quotas ?? {};
  }

  #nameOf(peer: Peer, token: string | null): string {
    if (token !== null) {
      const hash = hashOf(token);
      // Searches both, so that the response time does not reveal which one has the token.
      const [listed, given] = [this.#policyTokens.clientOf(hash), this.#tokens.clientOf(hash)];
      const name = listed ?? given;
      if (name === null) throw unauthenticated('The token is unknown. Send a valid token, or none.');
      return name;
    }
    if (peer === 'tcp') {
      if (this.#anonymousTcp) return 'anonymous';
      throw unauthenticated('This address requires a token. Send Authorization: Bearer <token>.');
    }
    if ('certificate' in peer) {
      if (peer.certificate !== null) return `cert:${peer.certificate}`;
      throw unauthenticated(
        'The certificate has no DNS, URI or email subjectAltName. Use one that has, or send a token.',
      );
    }
    if (peer.needsToken === true)
      throw unauthenticated('This socket requires a token. Send Authorization: Bearer <token>.');
    if (this.#policy === null && peer.uid !== this.#ownUid && peer.uid !== 0)
      throw new Problem('EPERM', 'This socket admits only root and the daemon’s own user. Send a token.');
    return `uid:${peer.uid}`;
  }

  /** @returns `null` if the policy refuses the client */
  #entryOf(name: string): Entry | null {
    if (this.#policy === null) return { rights: unlimited, quotas: {}, tokens: [] };
    return this.#policy.clients.get(name) ?? this.#policy.default;
  }
}

function tokensOf({ clients }: Policy): Tokens {
  const tokens = new Tokens();
  for (const [name, entry] of clients) for (const hash of entry.tokens) tokens.add(name, hash);
  return tokens;
}

/** Builds the problem of missing or wrong credentials, with its challenge (RFC 6750 3). */
export function unauthenticated(detail: string): Problem {
  return new Problem('EACCES', detail, { headers: { 'www-authenticate': 'Bearer realm="waitd"' } });
}
