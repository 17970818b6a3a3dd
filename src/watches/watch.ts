import type { Labels } from '../handles/handle.ts';
import { type Means, misses } from './lookout.ts';
import { type Match, Matcher } from './matcher.ts';

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

/** A watch as its client sees it. */
export interface WatchView extends Omit<WatchFacts, 'createdAt'> {
  by: Means;
  /** What it can miss. */
  misses: string;
  createdAt: string;
}

export function viewOfWatch({ facts, opened }: Watch, by: Means): WatchView {
  return { ...facts, opened, by, misses: misses[by], createdAt: new Date(facts.createdAt).toISOString() };
}
