import type { Filled } from '../../schemas/filled.ts';
import type { Match } from '../../schemas/match.ts';
import type { WatchView } from '../../schemas/watches.ts';
import { Matcher } from './matcher.ts';
import type { Labels } from './process.ts';

/** What of new processes is not noticed, for whoever relies on it. */
const misses: Record<WatchView['by'], string> = {
  events:
    'a process that has ended within the first milliseconds, before the daemon has opened it; one that never executes a program and ends within 100 ms',
  scan: 'a process that starts and ends between two looks at /proc, 50 ms apart or, so that looking takes a twentieth of a core at most, more',
};

/** What is kept of a watch. */
export interface WatchFacts {
  id: string;
  client: string;
  match: Match;
  /** Whether those are meant too that were there before. */
  existing: boolean;
  /** Of the handles that it opens, as their labels. */
  nonblocking: boolean;
  labels: Labels;
  /** Unix milliseconds. */
  createdAt: number;
  /** How many it has opened. */
  opened: number;
}

/** A client's standing wish for a handle on every process that matches. */
export class Watch {
  readonly facts: Readonly<Omit<WatchFacts, 'opened'>>;
  readonly matcher: Matcher;
  opened: number;
  /** The processes that it has nothing more to do with, by pid, each with what tells it from another of its pid. */
  readonly sighted = new Map<number, string>();

  constructor({ opened, ...facts }: WatchFacts) {
    this.facts = facts;
    this.opened = opened;
    this.matcher = new Matcher(facts.match);
  }
}

export function viewOfWatch({ facts, opened }: Watch, by: WatchView['by']): Filled<WatchView> {
  return { ...facts, opened, by, misses: misses[by], createdAt: new Date(facts.createdAt).toISOString() };
}
