import type { Filled } from '../../schemas/filled.ts';
import type { Match } from '../../schemas/match.ts';
import type { WatchView } from '../../schemas/watches.ts';
import { Matcher } from './matcher.ts';
import type { Labels } from './process.ts';

/** The new processes that each way of detection can miss, as views show them. */
const misses: Record<WatchView['by'], string> = {
  events:
    'a process that has ended within the first milliseconds, before the daemon has opened it; one that never executes a program and ends within 100 ms',
  scan: 'a process that starts and ends between two looks at /proc, 50 ms apart or, so that looking takes a twentieth of a core at most, more',
};

/** The stored facts of a watch. */
export interface WatchFacts {
  id: string;
  client: string;
  match: Match;
  /** Whether it also opens processes that existed before the watch. */
  existing: boolean;
  /** The flag of the handles that it opens. `labels` are theirs too. */
  nonblocking: boolean;
  labels: Labels;
  /** Unix milliseconds. */
  createdAt: number;
  /** How many handles it has opened. */
  opened: number;
}

/** A client's standing request for a handle on every process that matches. */
export class Watch {
  readonly facts: Readonly<Omit<WatchFacts, 'opened'>>;
  readonly matcher: Matcher;
  opened: number;
  /** The processes that it has handled, by pid, each with a key that distinguishes it from a later process of that pid. */
  readonly sighted = new Map<number, string>();

  constructor({ opened, ...facts }: WatchFacts) {
    this.facts = facts;
    this.opened = opened;
    this.matcher = new Matcher(facts.match);
  }
}

/** A watch as its client sees it. */
export function viewOfWatch({ facts, opened }: Watch, by: WatchView['by']): Filled<WatchView> {
  return { ...facts, opened, by, misses: misses[by], createdAt: new Date(facts.createdAt).toISOString() };
}
