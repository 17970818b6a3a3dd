/** Bytes. More than the kernel takes of arguments and environment together (2 MiB with the usual stack limit). */
export const BODY_LIMIT = 4 * 2 ** 20;

/** Bytes of a request's first line and headers together. */
export const HEADERS_LIMIT = 64 * 2 ** 10;

/** Bytes. A thousand handles fit into a query. */
export const URL_LIMIT = 48 * 2 ** 10;

/** Bytes of one WebSocket frame from a client: a thousand handles and room to spare. */
export const FRAME_LIMIT = 128 * 2 ** 10;

/** How long a TLS handshake may take. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * How long a request's headers, and then all of it, may take to arrive, from the connection or from the request before. A parked
 * answer has no limit.
 */
export const HEADERS_TIMEOUT_MS = 10_000;
export const REQUEST_TIMEOUT_MS = 60_000;

/** How often Node looks who has been too slow; 30 s if it is not told. */
export const TIMEOUTS_CHECK_MS = 1000;

/**
 * How much is still read of a request that is refused before all of it has arrived, so that its client gets to read the answer: closing
 * a socket with unread data resets the connection. In bytes, in time, and in time without a byte.
 */
export const LINGER_BYTES = 64 * 2 ** 20;
export const LINGER_MS = 30_000;
export const LINGER_IDLE_MS = 3000;

/** How often it is checked whether half-closed clients that wait for an answer are still there. */
export const HALF_OPEN_CHECK_MS = 1000;

/** How often a half-closed client on another machine gets an interim response, which it answers with a reset if it has gone. */
export const HALF_OPEN_PROBE_MS = 15_000;

/** How long a connection may stay open without a request. */
export const KEEP_ALIVE_TIMEOUT_MS = 75_000;

/** How many requests may wait on a connection for the answers to earlier ones. */
export const PIPELINE_LIMIT = 256;

/** How often a WebSocket is asked whether its other end is still there. */
export const PING_INTERVAL_MS = 30_000;

/** Finds a client that is gone without a word; a parked wait has no other timeout. */
export const TCP_KEEP_ALIVE_MS = 30_000;

/** Returns how many unauthenticated connections may be open over TCP, and as many again over Unix sockets. */
export function maxUnauthenticated(descriptors: number): number {
  return Math.floor(descriptors / 4);
}
