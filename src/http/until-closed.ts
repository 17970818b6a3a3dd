import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** Disposes of a resource when a connection or a response closes, or at once if it is closed already. */
export function untilClosed(owner: Socket | ServerResponse, held: Disposable): void {
  if (owner.closed) held[Symbol.dispose]();
  else owner.once('close', () => held[Symbol.dispose]());
}
