import type { z } from 'zod';
import type { RequestHeader, ResponseHeader } from '../headers.ts';
import type { ProblemErrno } from '../vocabulary.ts';

/** The groups of operations, with what each is about. */
export const tags = {
  handles: 'Handles on processes: spawn, open, duplicate, list, change and close them.',
  waits: 'waitid(2) on one handle, and poll(2) on many.',
  signals: 'Signals to a process, its group or its descendants.',
  output: 'What a process wrote to a captured stream.',
  input: 'What a process reads: from a pipe, or from its terminal.',
  events: 'Every change of every handle, as a page or a stream.',
  watches: 'Standing orders that open every process that matches.',
  node: 'The daemon itself: its health, metrics and limits.',
  problems: 'What each errno means.',
} as const;

/** A body other than JSON, or one of several media types. */
export interface Contents {
  description: string;
  content: Record<string, { schema: z.ZodType }>;
}

/** The errnos of the problems that an operation may answer with, by status. */
export type Problems = Readonly<Record<number, readonly ProblemErrno[]>>;

/** One operation of the API. It is the schema of its route, and what the OpenAPI document says of it. */
export interface Operation {
  operationId: string;
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** With `{name}` for each parameter. */
  path: `/${string}`;
  tags: (keyof typeof tags)[];
  summary: string;
  description: string;
  /** Answered without credentials. */
  open?: true;
  params?: z.ZodObject;
  querystring?: z.ZodObject;
  body?: z.ZodType;
  /** The body, where it is a stream of bytes and not JSON. */
  bytes?: z.ZodType;
  requestHeaders?: readonly RequestHeader[];
  /** Successful answers, by status; `z.null()` for one without a body. */
  response: Readonly<Record<number, z.ZodType | Contents>>;
  /** Headers of the successful answers, by status. */
  responseHeaders?: Readonly<Record<number, readonly ResponseHeader[]>>;
  problems: Problems;
  /** The frames of the WebSocket that the operation upgrades to. */
  webSocket?: { subprotocol: string; clientFrame: z.ZodType; serverFrame: z.ZodType };
}

/** What HTTP itself and the guard before all routes may refuse. */
export const anonymousProblems: Problems = {
  400: ['EINVAL', 'EPROTO'],
  403: ['EPERM'],
  408: ['EPROTO'],
  412: ['EPROTO'],
  413: ['E2BIG'],
  414: ['EPROTO'],
  415: ['EPROTO'],
  417: ['EPROTO'],
  421: ['EPERM'],
  431: ['EPROTO'],
  500: ['EIO'],
};

/** The same of an operation that needs credentials. */
export const commonProblems: Problems = { ...anonymousProblems, 401: ['EACCES'], 429: ['EDQUOT'], 503: ['EMFILE'] };
