import { AttachClientFrame, AttachQuery, AttachServerFrame } from '../attach.ts';
import { HandleParams } from '../handles.ts';
import { commonProblems, type Operation } from './operation.ts';

export const attach = {
  operationId: 'attach',
  method: 'GET',
  path: '/v1/handles/{id}/attach',
  tags: ['input'],
  summary: 'Attach to the input and the output',
  description:
    'Upgrades to a WebSocket with the subprotocol `waitd.attach.v1`, which carries the captured output from the given offsets on, and the input. Several may attach at once. Detaching changes nothing.',
  params: HandleParams,
  querystring: AttachQuery,
  response: {},
  problems: { ...commonProblems, 404: ['EBADF', 'ENODATA'], 410: ['ESTALE'], 426: ['EPROTO'] },
  webSocket: {
    subprotocol: 'waitd.attach.v1',
    clientFrame: AttachClientFrame,
    serverFrame: AttachServerFrame,
  },
} satisfies Operation;
