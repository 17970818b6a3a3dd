import { z } from 'zod';
import { ProblemParams } from '../problems.ts';
import { anonymousProblems, type Operation } from './operation.ts';

export const getProblem = {
  operationId: 'getProblem',
  method: 'GET',
  path: '/problems/{errno}',
  tags: ['problems'],
  summary: 'Explain a problem',
  description: 'Returns the cause and the cure of an errno. The `type` of a problem document leads here.',
  open: true,
  params: ProblemParams,
  response: {
    200: {
      description: 'The cause and the cure.',
      content: {
        'text/markdown': { schema: z.string().meta({ description: 'A section of the reference of errors.' }) },
      },
    },
  },
  problems: { ...anonymousProblems, 404: ['EPROTO'], 503: ['EMFILE'] },
} satisfies Operation;
