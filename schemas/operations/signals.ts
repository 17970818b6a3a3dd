import { z } from 'zod';
import { HandleParams } from '../handles.ts';
import { WithOutput } from '../output.ts';
import { Signal, Terminate } from '../signals.ts';
import { WaitidResult } from '../waits.ts';
import { commonProblems, type Operation } from './operation.ts';

export const sendSignal = {
  operationId: 'sendSignal',
  method: 'POST',
  path: '/v1/handles/{id}/signal',
  tags: ['signals'],
  summary: 'Send a signal',
  description: 'Sends a signal to the process, to the group that it leads, or to it and all its descendants.',
  params: HandleParams,
  body: Signal,
  requestHeaders: ['Idempotency-Key'],
  response: { 204: z.null().meta({ description: 'The signal is sent.' }) },
  responseHeaders: { 204: ['Idempotent-Replayed'] },
  problems: {
    ...commonProblems,
    404: ['EBADF', 'ESRCH'],
    410: ['ESTALE'],
    422: ['EINVAL'],
    501: ['EOPNOTSUPP'],
    503: ['EMFILE', 'ENOSPC', 'ENOENT'],
    504: ['ETIMEDOUT'],
  },
} satisfies Operation;

export const terminate = {
  operationId: 'terminate',
  method: 'POST',
  path: '/v1/handles/{id}/terminate',
  tags: ['signals'],
  summary: 'Terminate a process',
  description:
    'Sends SIGTERM and SIGCONT, and SIGKILL after the grace. A process that leads the session of a terminal and ignores SIGTERM, as an interactive shell does, also gets SIGHUP. It answers once the process has ended, and collects no status.',
  params: HandleParams,
  querystring: WithOutput,
  body: Terminate,
  requestHeaders: ['Idempotency-Key'],
  response: { 200: WaitidResult },
  responseHeaders: { 200: ['Idempotent-Replayed'] },
  problems: {
    ...commonProblems,
    404: ['EBADF'],
    410: ['ESTALE'],
    422: ['EINVAL'],
    503: ['EMFILE', 'ENOSPC', 'ENOENT', 'ESHUTDOWN'],
    504: ['ETIMEDOUT'],
  },
} satisfies Operation;
