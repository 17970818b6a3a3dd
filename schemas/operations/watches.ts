import { z } from 'zod';
import { CreateWatch, WatchList, WatchParams, WatchView } from '../watches.ts';
import { commonProblems, type Operation } from './operation.ts';

export const createWatch = {
  operationId: 'createWatch',
  method: 'POST',
  path: '/v1/watches',
  tags: ['watches'],
  summary: 'Create a watch',
  description: 'Opens a handle on every process that matches, from now on.',
  body: CreateWatch,
  requestHeaders: ['Idempotency-Key'],
  response: { 201: WatchView },
  responseHeaders: { 201: ['Location', 'Idempotent-Replayed'] },
  problems: { ...commonProblems, 404: ['EBADF'], 422: ['EINVAL'], 503: ['EMFILE', 'ENOSPC', 'ENOENT'] },
} satisfies Operation;

export const listWatches = {
  operationId: 'listWatches',
  method: 'GET',
  path: '/v1/watches',
  tags: ['watches'],
  summary: 'List watches',
  description: 'Lists the watches of the client, newest first.',
  querystring: z.strictObject({}),
  response: { 200: WatchList },
  problems: commonProblems,
} satisfies Operation;

export const getWatch = {
  operationId: 'getWatch',
  method: 'GET',
  path: '/v1/watches/{id}',
  tags: ['watches'],
  summary: 'Get a watch',
  description: 'Returns the watch as it is now.',
  params: WatchParams,
  response: { 200: WatchView },
  problems: { ...commonProblems, 404: ['EBADF'] },
} satisfies Operation;

export const deleteWatch = {
  operationId: 'deleteWatch',
  method: 'DELETE',
  path: '/v1/watches/{id}',
  tags: ['watches'],
  summary: 'Delete a watch',
  description: 'Deletes the watch. The handles that it opened stay.',
  params: WatchParams,
  response: { 204: z.null().meta({ description: 'The watch is deleted.' }) },
  problems: { ...commonProblems, 404: ['EBADF'], 503: ['EMFILE', 'ENOSPC', 'ENOENT'] },
} satisfies Operation;
