import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** Disposes of something when a connection or an answer has closed, even if it closed before. */
export function untilClosed(owner: Socket | ServerResponse, held: Disposable): void {
  if (owner.closed) held[Symbol.dispose]();
  else owner.once('close', () => held[Symbol.dispose]());
}
