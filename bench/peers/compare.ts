import { setTimeout } from 'node:timers/promises';
import { percentile, type Spread, spreadOf } from '../statistics.ts';
import type { Candidate, Peer } from './peer.ts';

/** Pause, so that the cleanup of one peer, such as of a container, does not overlap with the next measurement. */
const BETWEEN_MS = 500;

export interface Side {
  candidate: Candidate;
  peer: Peer;
  /** Nanoseconds, for each run. */
  runs: number[][];
}

/** Measures all sides run by run. Each run starts with another side, so that the order does not favour one. */
export async function compare(sides: readonly Side[], runs: number, quick: boolean): Promise<void> {
  for (let run = 0; run < runs; run += 1)
    for (const at of sides.keys()) {
      const { candidate, peer, runs: done } = sides[(run + at) % sides.length]!;
      done.push(await peer.measure(quick ? candidate.samples.quick : candidate.samples.whole));
      await setTimeout(BETWEEN_MS);
    }
}

/** The comparison of one side. Times are in microseconds. */
export interface Comparison {
  name: string;
  by: string;
  version: string;
  /** The p50 of each run. */
  p50Us: Spread;
  /** Over the exits of all runs together, because a single run has too few. */
  p99Us: number;
  /** The ratio of its p50 to waitd's in the same run; like the next field, `null` for waitd itself. */
  ratio: Spread | null;
  atLeast: number | null;
  met: boolean | null;
  samplesUs: number[][];
}

export function comparisonOf({ candidate, peer, runs }: Side, waitd: Side): Comparison {
  const p50s = runs.map((run) => percentile(run, 50) / 1000);
  const { name, by, atLeast } = candidate;
  const ratio =
    atLeast === null ? null : spreadOf(p50s.map((p50, run) => (p50 * 1000) / percentile(waitd.runs[run]!, 50)));
  return {
    name,
    by,
    version: peer.version,
    p50Us: spreadOf(p50s),
    p99Us: percentile(runs.flat(), 99) / 1000,
    ratio,
    atLeast,
    met: ratio && ratio.median >= atLeast!,
    samplesUs: runs.map((run) => run.map((nanoseconds) => nanoseconds / 1000)),
  };
}
