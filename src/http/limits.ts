/** In bytes. More than the kernel accepts for arguments and environment together (2 MiB with the usual stack limit; execve(2)). */
export const BODY_LIMIT = 4 * 2 ** 20;

/** The size of a request's first line and headers together, in bytes. */
export const HEADERS_LIMIT = 64 * 2 ** 10;

/** In bytes. A thousand handles fit into a query. */
export const URL_LIMIT = 48 * 2 ** 10;

/** The size of one WebSocket frame from a client, in bytes. A thousand handles fit. */
export const FRAME_LIMIT = 128 * 2 ** 10;

/** The time limit of a TLS handshake. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * The time limits for the arrival of a request's headers and of the whole request, from the connection or the previous request. The
 * answer has no time limit.
 */
export const HEADERS_TIMEOUT_MS = 10_000;
export const REQUEST_TIMEOUT_MS = 60_000;

/** The interval at which Node.js checks these limits; its default is 30 s. */
export const TIMEOUTS_CHECK_MS = 1000;

/**
 * Limits on the rest of a refused request, in bytes, in total time, and in time without data. The rest is read and discarded so that
 * the client receives the answer, because the close of a socket with unread data resets the connection.
 */
export const LINGER_BYTES = 64 * 2 ** 20;
export const LINGER_MS = 30_000;
export const LINGER_IDLE_MS = 3000;

/** The interval of the checks whether half-closed clients are still connected. */
export const HALF_OPEN_CHECK_MS = 1000;

/** The interval of interim responses to half-closed clients on other machines. A disconnected one answers with a reset. */
export const HALF_OPEN_PROBE_MS = 15_000;

/** The time that a connection may stay open without a request. */
export const KEEP_ALIVE_TIMEOUT_MS = 75_000;

/** The number of requests on a connection that may wait for the answers to earlier ones. */
export const PIPELINE_LIMIT = 256;

/** The interval of pings on a WebSocket. */
export const PING_INTERVAL_MS = 30_000;

/** Detects a client that vanished without a FIN. A parked wait has no other timeout. */
export const TCP_KEEP_ALIVE_MS = 30_000;

/** Returns the limit of unauthenticated connections over TCP, which also applies separately to Unix sockets. */
export function maxUnauthenticated(descriptors: number): number {
  return Math.floor(descriptors / 4);
}
