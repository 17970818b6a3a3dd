import { z } from 'zod';
import { HandleParams } from '../handles.ts';
import { Accepted, InputBytes, InputQuery } from '../input.ts';
import { WindowSize } from '../terminal.ts';
import { commonProblems, type Operation } from './operation.ts';

export const writeStdin = {
  operationId: 'writeStdin',
  method: 'POST',
  path: '/v1/handles/{id}/stdin',
  tags: ['input'],
  summary: 'Write to the standard input',
  description:
    'Writes as write(2) does to the pipe or the terminal of a process. On a blocking handle it waits until everything is accepted. On a nonblocking one it accepts what fits, and answers EAGAIN if nothing does.',
  params: HandleParams,
  querystring: InputQuery,
  bytes: InputBytes,
  requestHeaders: ['Idempotency-Key'],
  response: { 200: Accepted },
  responseHeaders: { 200: ['Idempotent-Replayed'] },
  problems: {
    ...commonProblems,
    404: ['EBADF', 'ENODATA'],
    409: ['EAGAIN'],
    410: ['EPIPE', 'ESTALE'],
    422: ['EINVAL'],
    503: ['EMFILE', 'ENOSPC', 'ESHUTDOWN'],
  },
} satisfies Operation;

export const resizeTerminal = {
  operationId: 'resizeTerminal',
  method: 'PUT',
  path: '/v1/handles/{id}/tty',
  tags: ['input'],
  summary: 'Set the size of a terminal',
  description:
    'Sets the window size of the terminal of a process. If it changes, the foreground process group gets SIGWINCH.',
  params: HandleParams,
  body: WindowSize,
  response: { 204: z.null().meta({ description: 'The size is set.' }) },
  problems: { ...commonProblems, 404: ['EBADF'], 410: ['EPIPE', 'ESTALE'], 422: ['ENOTTY'] },
} satisfies Operation;
