import { Problem } from '../errors/problem.ts';
import type { Tokens } from './tokens.ts';

/** How a request came: by a Unix socket from a user, or by TCP from anybody. */
export type Peer = { uid: number } | 'tcp';

/** Says who is asking. */
export class Clients {
  readonly #tokens: Tokens;
  readonly #anonymousTcp: boolean;
  readonly #ownUid = process.getuid!();

  constructor(tokens: Tokens, anonymousTcp: boolean) {
    this.#tokens = tokens;
    this.#anonymousTcp = anonymousTcp;
  }

  /**
   * The client's name.
   * @param token the bearer token, `null` where none was presented
   * @throws {Problem} EACCES for a wrong token (never a fall-back) or none where one is needed; EPERM for a user who is not let in
   */
  identify(peer: Peer, token: string | null): string {
    if (token !== null) {
      const client = this.#tokens.clientOf(token);
      if (client === null) throw unauthenticated('This token is nobody’s: present a right one, or none.');
      return client;
    }
    if (peer === 'tcp') {
      if (this.#anonymousTcp) return 'anonymous';
      throw unauthenticated('Present a token: Authorization: Bearer <token>.');
    }
    if (peer.uid !== this.#ownUid && peer.uid !== 0)
      throw new Problem('EPERM', 'On this socket only the daemon’s own user and root are let in: present a token.');
    return `uid:${peer.uid}`;
  }
}

export function unauthenticated(detail: string): Problem {
  return new Problem('EACCES', detail, { headers: { 'www-authenticate': 'Bearer realm="waitd"' } });
}
