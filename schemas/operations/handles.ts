import { z } from 'zod';
import {
  CloseQuery,
  CreateHandle,
  HandleList,
  HandleParams,
  HandleView,
  ListHandles,
  UpdateHandle,
} from '../handles.ts';
import { WithOutput } from '../output.ts';
import { Usage } from '../usage.ts';
import { commonProblems, type Operation } from './operation.ts';

export const createHandle = {
  operationId: 'createHandle',
  method: 'POST',
  path: '/v1/handles',
  tags: ['handles'],
  summary: 'Create a handle',
  description:
    'Starts a program, opens a process that exists, or duplicates a handle. With `Prefer: wait=N`, a spawn answers when the process has ended or N seconds have passed.',
  querystring: WithOutput,
  body: CreateHandle,
  requestHeaders: ['Prefer', 'Idempotency-Key'],
  response: { 201: HandleView },
  responseHeaders: { 201: ['Location', 'Preference-Applied', 'Idempotent-Replayed'] },
  problems: {
    ...commonProblems,
    403: ['EPERM', 'EACCES'],
    404: ['EBADF', 'ESRCH'],
    409: ['EEXIST', 'ENOTUNIQ'],
    410: ['ESTALE'],
    422: ['ENOENT', 'ENOTDIR', 'ENOEXEC', 'EISDIR', 'ELOOP', 'ENAMETOOLONG', 'ENXIO', 'EROFS', 'ETXTBSY', 'EINVAL'],
    501: ['EOPNOTSUPP'],
    503: ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC', 'EAGAIN', 'ENOENT', 'ESHUTDOWN'],
  },
} satisfies Operation;

export const listHandles = {
  operationId: 'listHandles',
  method: 'GET',
  path: '/v1/handles',
  tags: ['handles'],
  summary: 'List handles',
  description: 'Lists the handles of the client, newest first.',
  querystring: ListHandles,
  response: { 200: HandleList },
  problems: commonProblems,
} satisfies Operation;

export const getHandle = {
  operationId: 'getHandle',
  method: 'GET',
  path: '/v1/handles/{id}',
  tags: ['handles'],
  summary: 'Get a handle',
  description: 'Returns the handle as it is now.',
  params: HandleParams,
  querystring: WithOutput,
  response: { 200: HandleView },
  problems: { ...commonProblems, 404: ['EBADF'], 410: ['ESTALE'] },
} satisfies Operation;

export const getUsage = {
  operationId: 'getUsage',
  method: 'GET',
  path: '/v1/handles/{id}/usage',
  tags: ['handles'],
  summary: 'Get the usage of a running process',
  description:
    'Returns the CPU time, memory, threads, descriptors and storage traffic of a running process, or of its whole cgroup if the spawn asked for one.',
  params: HandleParams,
  response: { 200: Usage },
  problems: { ...commonProblems, 404: ['EBADF', 'ESRCH'], 410: ['ESTALE'] },
} satisfies Operation;

export const updateHandle = {
  operationId: 'updateHandle',
  method: 'PATCH',
  path: '/v1/handles/{id}',
  tags: ['handles'],
  summary: 'Update a handle',
  description:
    'Sets O_NONBLOCK, and changes the name, labels and timeout. A wait that is parked already goes on. If one change is refused, none is made.',
  params: HandleParams,
  body: UpdateHandle,
  response: { 200: HandleView },
  problems: {
    ...commonProblems,
    404: ['EBADF', 'ESRCH'],
    409: ['EEXIST'],
    410: ['ESTALE'],
    503: ['EMFILE', 'ENOSPC', 'ENOENT'],
  },
} satisfies Operation;

export const closeHandle = {
  operationId: 'closeHandle',
  method: 'DELETE',
  path: '/v1/handles/{id}',
  tags: ['handles'],
  summary: 'Close a handle',
  description: 'Closes the handle. The process lives on unless `signal` ends it.',
  params: HandleParams,
  querystring: CloseQuery,
  response: { 204: z.null().meta({ description: 'The handle is closed.' }) },
  problems: { ...commonProblems, 404: ['EBADF'], 410: ['ESTALE'], 503: ['EMFILE', 'ENOSPC', 'ENOENT'] },
} satisfies Operation;
