import type { ServerResponse } from 'node:http';

/** Fires when the caller goes away before it is answered. */
export function goneSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  // On the response, not the request: a request also "closes" when its body has been read.
  response.once('close', () => {
    if (!response.writableFinished) controller.abort();
  });
  if (response.destroyed) controller.abort();
  return controller.signal;
}
