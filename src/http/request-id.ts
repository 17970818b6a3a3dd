import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

/** Returns the caller's own request id (X-Request-Id) if it is valid, otherwise a random UUID. */
export function requestId({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && /^[\w.~:+/=@-]{1,128}$/.test(given) ? given : randomUUID();
}
