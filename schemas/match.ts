import { z } from 'zod';
import { cString } from './common.ts';

const pattern = (what: string) =>
  cString
    .min(1)
    .max(4096)
    .meta({ description: `${what} A \`*\` stands for any characters.` });

const matchers = {
  cgroup: pattern('The cgroup (v2), as the daemon sees it.').optional(),
  exe: pattern('The path of the program.').optional(),
  argv: pattern('The arguments, joined by spaces.').optional(),
};

export const Match = z
  .strictObject(matchers)
  .refine(
    (match) => Object.values(match).some((part) => part !== undefined),
    'give at least one of cgroup, exe and argv',
  )
  .meta({
    id: 'Match',
    description: 'Selects processes. All of the given patterns must fit.',
    minProperties: 1,
    examples: [{ cgroup: '*/pod1234*', argv: 'nginx: master*' }],
  });
export type Match = z.infer<typeof Match>;

/** A matcher in an answer, which may get more fields. */
export const MatchView = z.object(matchers).meta({
  id: 'MatchView',
  description: 'The patterns that select processes.',
  examples: [{ argv: 'nginx: master*' }],
});
