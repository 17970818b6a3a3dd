import { HandleParams } from '../handles.ts';
import { WithOutput } from '../output.ts';
import { Poll, PollResult, Waitid, WaitidResult } from '../waits.ts';
import { commonProblems, type Operation } from './operation.ts';

export const waitid = {
  operationId: 'waitid',
  method: 'POST',
  path: '/v1/handles/{id}/waitid',
  tags: ['waits'],
  summary: 'Wait for a process',
  description:
    'Waits as waitid(2) does, and collects the status unless WNOWAIT is given. A blocking handle waits, a nonblocking one answers EAGAIN.',
  params: HandleParams,
  querystring: WithOutput,
  body: Waitid,
  requestHeaders: ['Prefer', 'Idempotency-Key'],
  response: { 200: WaitidResult, 202: WaitidResult },
  responseHeaders: {
    200: ['Preference-Applied', 'Idempotent-Replayed'],
    202: ['Preference-Applied', 'Retry-After', 'Link'],
  },
  problems: {
    ...commonProblems,
    404: ['EBADF'],
    409: ['EAGAIN'],
    410: ['ECHILD', 'ESTALE'],
    422: ['EINVAL'],
    503: ['EMFILE', 'ENOSPC', 'ENOENT', 'ESHUTDOWN'],
  },
} satisfies Operation;

export const poll = {
  operationId: 'poll',
  method: 'POST',
  path: '/v1/poll',
  tags: ['waits'],
  summary: 'Wait for several handles',
  description: 'Waits until any, all or a number of the handles are ready. It collects no status.',
  body: Poll,
  requestHeaders: ['Prefer', 'Idempotency-Key'],
  response: { 200: PollResult },
  problems: {
    ...commonProblems,
    404: ['EBADF'],
    410: ['ESTALE'],
    422: ['EINVAL'],
    503: ['EMFILE', 'ESHUTDOWN'],
  },
} satisfies Operation;
