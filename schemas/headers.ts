import { z } from 'zod';

/** A header of a request or an answer, for the OpenAPI document. */
export interface Header {
  description: string;
  schema: z.ZodType;
  example: string | number;
}

/** The headers of requests that some operations heed. Their values are checked where they are read. */
export const requestHeaders = {
  'Idempotency-Key': {
    description:
      'A key that the client chooses for this request. A second request with the same key gets the answer of the first and does nothing again.',
    schema: z.string().min(1).max(255),
    example: 'b5c1e2a0-build-42',
  },
  'If-Range': {
    description: 'If present, `Range` is ignored and all bytes are sent, because output has no validator.',
    schema: z.string(),
    example: '"etag"',
  },
  'Last-Event-ID': {
    description: 'The cursor to resume after. An event stream sends it on a reconnect, and it overrides `since`.',
    schema: z.string(),
    example: '17',
  },
  Prefer: {
    description:
      'Preferences of RFC 7240: `wait=N` waits up to N seconds. `respond-async` lets `waitid` answer 202 instead of 409.',
    schema: z.string(),
    example: 'wait=30',
  },
  Range: {
    description: 'The bytes to send, as one range.',
    schema: z.string(),
    example: 'bytes=0-1023',
  },
} as const satisfies Record<string, Header>;
export type RequestHeader = keyof typeof requestHeaders;

/** The headers of answers beside those that every HTTP answer has. */
export const responseHeaders = {
  'Accept-Encoding': {
    description: 'The content coding that is accepted: none.',
    schema: z.string(),
    example: 'identity',
  },
  'Accept-Ranges': { description: 'The unit of ranges.', schema: z.string(), example: 'bytes' },
  'Content-Range': {
    description: 'The bytes that were sent, and the size of the whole stream.',
    schema: z.string(),
    example: 'bytes 0-1023/4096',
  },
  'Idempotent-Replayed': {
    description: 'Present if this is the stored answer of an earlier request with the same key.',
    schema: z.literal('true'),
    example: 'true',
  },
  Link: {
    description: 'Where to subscribe instead of polling (RFC 8288).',
    schema: z.string(),
    example: '</v1/events?handle=h_3q2-7wEBAgMEBQYHCAkKCw&since=17>; rel="monitor"',
  },
  Location: {
    description: 'The path of what was made.',
    schema: z.string().meta({ format: 'uri-reference' }),
    example: '/v1/handles/h_3q2-7wEBAgMEBQYHCAkKCw',
  },
  'Preference-Applied': {
    description: 'The preference that was applied (RFC 7240).',
    schema: z.string(),
    example: 'wait=30',
  },
  'Retry-After': {
    description: 'How long to wait before the next attempt, in seconds.',
    schema: z.int().min(0),
    example: 1,
  },
  Upgrade: { description: 'The protocol to upgrade to.', schema: z.string(), example: 'websocket' },
  'Waitd-Offset': {
    description: 'The offset of the first byte of the body in the stream. It is above 0 if the beginning is not sent.',
    schema: z.int().min(0),
    example: 0,
  },
  'WWW-Authenticate': {
    description: 'The authentication scheme to use.',
    schema: z.string(),
    example: 'Bearer realm="waitd"',
  },
  'X-Request-Id': {
    description: 'The id of the request: the one that the client sent, or a new one.',
    schema: z.string(),
    example: '0b9d1c5e-7a55-4c1e-8f4a-0f3a2f9f2a11',
  },
} as const satisfies Record<string, Header>;
export type ResponseHeader = keyof typeof responseHeaders;
