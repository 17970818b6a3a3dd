import { setTimeout } from 'node:timers/promises';
import { percentile, type Spread, spreadOf } from '../statistics.ts';
import type { Candidate, Peer } from './peer.ts';

/** For what one leaves behind, such as the clearing away of a container, not to fall into the measuring of the next. */
const BETWEEN_MS = 500;

export interface Side {
  candidate: Candidate;
  peer: Peer;
  /** Nanoseconds, of each run. */
  runs: number[][];
}

/** Measures all, run by run; each run begins with another one, so that none always comes after the same. */
export async function compare(sides: readonly Side[], runs: number, quick: boolean): Promise<void> {
  for (let run = 0; run < runs; run += 1)
    for (const at of sides.keys()) {
      const { candidate, peer, runs: done } = sides[(run + at) % sides.length]!;
      done.push(await peer.measure(quick ? candidate.samples.quick : candidate.samples.whole));
      await setTimeout(BETWEEN_MS);
    }
}

/** Times in microseconds. */
export interface Comparison {
  name: string;
  by: string;
  version: string;
  /** Of the runs. */
  p50Us: Spread;
  /** Of the ends of all runs together, for a run alone has too few. */
  p99Us: number;
  /** Of its p50 to waitd's in the same run, and `null` for waitd itself, as is what follows. */
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
