import { z } from 'zod';
import { ClientFrame, EventPage, EventQuery, ServerFrame } from '../events.ts';
import { commonProblems, type Operation } from './operation.ts';

export const listEvents = {
  operationId: 'listEvents',
  method: 'GET',
  path: '/v1/events',
  tags: ['events'],
  summary: 'List or stream events',
  description:
    'Returns a page of events, a stream of them with `Accept: text/event-stream`, or upgrades to a WebSocket with the subprotocol `waitd.v1`.',
  querystring: EventQuery,
  requestHeaders: ['Last-Event-ID'],
  response: {
    200: {
      description: 'A page of events, or a stream.',
      content: {
        'application/json': { schema: EventPage },
        'text/event-stream': {
          schema: z.string().meta({ description: 'The `data` of each message is a ServerFrame, its `id` the cursor.' }),
        },
      },
    },
  },
  problems: { ...commonProblems, 404: ['EBADF'], 406: ['EPROTO'], 426: ['EPROTO'], 503: ['EMFILE', 'ESHUTDOWN'] },
  webSocket: { subprotocol: 'waitd.v1', clientFrame: ClientFrame, serverFrame: ServerFrame },
} satisfies Operation;
