/** Bytes. More than the kernel takes of arguments and environment together (2 MiB with the usual stack limit). */
export const BODY_LIMIT = 4 * 2 ** 20;

/** Bytes of one WebSocket frame from a client: a thousand handles and room to spare. */
export const FRAME_LIMIT = 128 * 2 ** 10;

/** How long a request's headers, and then its body, may take to arrive. A parked answer has no limit. */
export const HEADERS_TIMEOUT_MS = 10_000;
export const REQUEST_TIMEOUT_MS = 60_000;

/** How long a connection may stay open without a request. */
export const KEEP_ALIVE_TIMEOUT_MS = 75_000;
