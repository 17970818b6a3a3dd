import { HandleParams } from '../handles.ts';
import { OutputBytes, OutputQuery } from '../output.ts';
import { commonProblems, type Operation } from './operation.ts';

const bytes = (description: string) => ({
  description,
  content: { 'application/octet-stream': { schema: OutputBytes } },
});

const common = {
  method: 'GET',
  tags: ['output'],
  description:
    'Returns the bytes that the stream has so far, or with `follow=1` also those that are still to come. The stream must have been captured.',
  params: HandleParams,
  querystring: OutputQuery,
  requestHeaders: ['Range', 'If-Range'],
  response: { 200: bytes('The bytes so far.'), 206: bytes('The bytes of the range.') },
  responseHeaders: {
    200: ['Waitd-Offset', 'Accept-Ranges'],
    206: ['Waitd-Offset', 'Accept-Ranges', 'Content-Range'],
  },
  problems: { ...commonProblems, 404: ['EBADF', 'ENODATA'], 410: ['ESTALE'], 416: ['EPROTO'] },
} satisfies Omit<Operation, 'operationId' | 'path' | 'summary'>;

export const readStdout = {
  ...common,
  operationId: 'readStdout',
  path: '/v1/handles/{id}/stdout',
  summary: 'Read the standard output',
} satisfies Operation;

export const readStderr = {
  ...common,
  operationId: 'readStderr',
  path: '/v1/handles/{id}/stderr',
  summary: 'Read the standard error',
} satisfies Operation;
