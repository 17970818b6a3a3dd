import { z } from 'zod';
import { Health, NodeView } from '../node.ts';
import { anonymousProblems, commonProblems, type Operation } from './operation.ts';

export const getNode = {
  operationId: 'getNode',
  method: 'GET',
  path: '/v1/node',
  tags: ['node'],
  summary: 'Describe the daemon',
  description: 'Returns the version of the daemon, its kernel with the features of pidfds, and its limits.',
  response: { 200: NodeView },
  problems: commonProblems,
} satisfies Operation;

const { 503: _never, ...metricsProblems } = commonProblems;

export const getMetrics = {
  operationId: 'getMetrics',
  method: 'GET',
  path: '/metrics',
  tags: ['node'],
  summary: 'Get metrics',
  description: 'Returns the metrics of the daemon in the text format of Prometheus.',
  response: {
    200: {
      description: 'The metrics.',
      content: { 'text/plain': { schema: z.string().meta({ description: 'Metrics in the text format.' }) } },
    },
  },
  problems: metricsProblems,
} satisfies Operation;

export const getLiveness = {
  operationId: 'getLiveness',
  method: 'GET',
  path: '/livez',
  tags: ['node'],
  summary: 'Check liveness',
  description: 'Answers 200 while the daemon runs.',
  open: true,
  response: { 200: Health },
  problems: anonymousProblems,
} satisfies Operation;

export const getReadiness = {
  operationId: 'getReadiness',
  method: 'GET',
  path: '/readyz',
  tags: ['node'],
  summary: 'Check readiness',
  description: 'Answers 200 if the daemon can take work, and 503 if a check fails.',
  open: true,
  response: { 200: Health, 503: Health },
  problems: anonymousProblems,
} satisfies Operation;
