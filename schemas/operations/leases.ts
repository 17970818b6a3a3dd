import { HandleParams } from '../handles.ts';
import { RenewedLease } from '../lifetime.ts';
import { commonProblems, type Operation } from './operation.ts';

export const renewLease = {
  operationId: 'renewLease',
  method: 'POST',
  path: '/v1/handles/{id}/lease',
  tags: ['handles'],
  summary: 'Renew a lease',
  description: 'Renews the lease of the process: it lasts for its whole `ttlMs` from now on.',
  params: HandleParams,
  requestHeaders: ['Idempotency-Key'],
  response: { 200: RenewedLease },
  problems: { ...commonProblems, 404: ['EBADF', 'ESRCH'], 410: ['ESTALE'], 422: ['EINVAL'] },
} satisfies Operation;
