import type { Scene } from './scene.ts';
import { type Spread, spreadOf } from './statistics.ts';

/** How much is done. */
export interface Plan {
  runs: number;
  spawns: number;
  exits: number;
  loadMs: number;
  warmUpMs: number;
  /** Live handles, where there are to be many. */
  handles: number;
  /** Live handles, ever more of them. */
  growth: number[];
  /** How long a daemon is looked at. */
  watchMs: number;
  /** Where the daemon's CPU profile goes, where one is wanted. */
  profile?: string;
}

/** One thing that was measured, in every run beside its floor. */
export interface Measure {
  what: string;
  unit: string;
  waitd: number[];
  /** `null` where there is none: then the target is of the value itself. */
  floor: number[] | null;
  /** Of the ratio waitd : floor. */
  target: { atLeast: number } | { atMost: number };
  /** What the values were taken from, of all runs together, in microseconds: for a picture of how they are distributed. */
  samples?: { waitd: number[]; floor: number[] };
  /** How it goes with a number, where that is what the values were taken from. */
  growth?: Growth;
  /** What of it this machine does not allow, and why, in one line. */
  lacks?: string;
}

/** What one thing costs, against how many there are of another. */
export interface Growth {
  title: string;
  /** What there are ever more of. */
  of: string;
  unit: string;
  /** Medians of the runs. */
  points: { count: number; waitd: number; floor: number | null }[];
}

/** What this machine does not allow, and why, in one line. */
export class Skipped extends Error {}

export type Measurement = (scene: Scene, floor: string, plan: Plan) => Promise<Measure[]>;

export interface Summary {
  waitd: Spread;
  /** `null` where there is no floor, as is the ratio. */
  floor: Spread | null;
  /** Of the pairs: what disturbs a run disturbs both sides of it. */
  ratio: Spread | null;
  met: boolean;
}

export function summaryOf({ waitd, floor, target }: Measure): Summary {
  const ratio = floor && spreadOf(waitd.map((value, run) => value / floor[run]!));
  const { median } = ratio ?? spreadOf(waitd);
  const met = 'atLeast' in target ? median >= target.atLeast : median <= target.atMost;
  return { waitd: spreadOf(waitd), floor: floor && spreadOf(floor), ratio, met };
}

/** Runs both sides in turn; every other run begins with the other one, so that neither always comes after the other. */
export async function inTurns(runs: number, waitd: () => Promise<void>, floor: () => Promise<void>): Promise<void> {
  for (let run = 0; run < runs; run += 1)
    for (const side of run % 2 === 0 ? [waitd, floor] : [floor, waitd]) await side();
}
