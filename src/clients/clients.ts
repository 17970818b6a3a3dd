import { Problem } from '../errors/problem.ts';
import { Listeners } from '../model/listeners.ts';
import { Client } from './client.ts';
import type { Entry, Policy } from './policy.ts';
import type { Quotas } from './quotas.ts';
import { unlimited } from './rights.ts';
import { hashOf, Tokens } from './tokens.ts';

/**
 * How a request came: by a Unix socket from a user, by TLS from whoever holds the key of a certificate (its name is `null` where
 * it has none), or by TCP from anybody.
 */
export type Peer = { uid: number; needsToken?: boolean } | { certificate: string | null } | 'tcp';

export interface ClientsParts {
  tokens: Tokens;
  /** TCP without credentials is let in, as `anonymous`. */
  anonymousTcp: boolean;
  /** `null`: whoever can prove a name may do everything with what is its own. */
  policy: Policy | null;
}

const nobody: Entry['rights'] = {
  open: 'none',
  spawn: false,
  signal: false,
  observe: false,
  admin: false,
  metrics: false,
};

/** Says who is asking, and what that client may do. */
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

  /** From now on this policy holds, for those too who are here already. */
  apply(policy: Policy): void {
    this.#policy = policy;
    this.#policyTokens = tokensOf(policy);
    for (const [name, client] of this.#byName) {
      const entry = this.#entryOf(name);
      if (entry === null) this.#byName.delete(name);
      client.rights = entry?.rights ?? nobody;
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
   * @param token the bearer token, `null` where none was presented
   * @throws {Problem} EACCES for a wrong token (never a fall-back) or none where one is needed; EPERM for one who is not let in
   */
  identify(peer: Peer, token: string | null): Client {
    const name = this.#nameOf(peer, token);
    const client = this.find(name);
    if (client === null)
      throw new Problem('EPERM', `The policy does not let ${name} in: ask whoever runs this daemon.`);
    return client;
  }

  /** A client by its name, `null` for one who is not let in. */
  find(name: string): Client | null {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const entry = this.#entryOf(name);
    if (entry === null) return null;
    const client = new Client(name, entry.rights, entry.quotas);
    this.#byName.set(name, client);
    return client;
  }

  /** What a client may have, be it here or not. */
  quotasOf(name: string): Quotas {
    return this.#entryOf(name)?.quotas ?? {};
  }

  #nameOf(peer: Peer, token: string | null): string {
    if (token !== null) {
      const hash = hashOf(token);
      // Both are asked, so that the time does not tell which one knew it.
      const [listed, given] = [this.#policyTokens.clientOf(hash), this.#tokens.clientOf(hash)];
      const name = listed ?? given;
      if (name === null) throw unauthenticated('This token is nobody’s: present a right one, or none.');
      return name;
    }
    if (peer === 'tcp') {
      if (this.#anonymousTcp) return 'anonymous';
      throw unauthenticated('Present a token: Authorization: Bearer <token>.');
    }
    if ('certificate' in peer) {
      if (peer.certificate !== null) return `cert:${peer.certificate}`;
      throw unauthenticated('This certificate names nobody: it needs a DNS, URI or email subjectAltName, or a token.');
    }
    if (peer.needsToken === true) throw unauthenticated('This socket asks for a token: Authorization: Bearer <token>.');
    if (this.#policy === null && peer.uid !== this.#ownUid && peer.uid !== 0)
      throw new Problem('EPERM', 'On this socket only the daemon’s own user and root are let in: present a token.');
    return `uid:${peer.uid}`;
  }

  /** @returns `null` for one who is not let in */
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

export function unauthenticated(detail: string): Problem {
  return new Problem('EACCES', detail, { headers: { 'www-authenticate': 'Bearer realm="waitd"' } });
}
