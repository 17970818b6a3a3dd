import type { Scene } from './scene.ts';
import { type Spread, spreadOf } from './statistics.ts';

/** How much work a measurement does. */
export interface Plan {
  runs: number;
  spawns: number;
  exits: number;
  loadMs: number;
  warmUpMs: number;
  /** The number of live handles in measurements with many. */
  handles: number;
  /** The number of processes with a timeout. */
  timeouts: number;
  /** Increasing numbers of live handles. */
  growth: number[];
  /** How long an idle daemon is observed, in milliseconds. */
  watchMs: number;
  /** The path for the daemon's CPU profile, if requested. */
  profile?: string;
}

/** One measured quantity, beside its floor in every run. */
export interface Measure {
  what: string;
  unit: string;
  waitd: number[];
  /** `null` if there is no floor: then the target applies to the value itself. */
  floor: number[] | null;
  /** The target of the ratio waitd : floor. */
  target: { atLeast: number } | { atMost: number };
  /** The samples behind the values, of all runs together, in microseconds, to draw their distribution. */
  samples?: { waitd: number[]; floor: number[] };
  /** The growth with a number, if the values were computed from it. */
  growth?: Growth;
  /** The part that this machine does not allow, with the reason, in one line. */
  lacks?: string;
}

/** The cost of one operation at increasing numbers of something else. */
export interface Growth {
  title: string;
  /** What the numbers count. */
  of: string;
  unit: string;
  /** Medians of the runs. */
  points: { count: number; waitd: number; floor: number | null }[];
}

/** Thrown if this machine does not allow a measurement; the message is the reason, in one line. */
export class Skipped extends Error {}

export type Measurement = (scene: Scene, floor: string, plan: Plan) => Promise<Measure[]>;

export interface Summary {
  waitd: Spread;
  /** `null` without a floor, like the ratio. */
  floor: Spread | null;
  /** Computed from pairs, because a disturbance of a run affects both sides. */
  ratio: Spread | null;
  met: boolean;
}

export function summaryOf({ waitd, floor, target }: Measure): Summary {
  const ratio = floor && spreadOf(waitd.map((value, run) => value / floor[run]!));
  const { median } = ratio ?? spreadOf(waitd);
  const met = 'atLeast' in target ? median >= target.atLeast : median <= target.atMost;
  return { waitd: spreadOf(waitd), floor: floor && spreadOf(floor), ratio, met };
}

/** Runs both sides in turn. Every other run starts with the other side, so that the order does not favour one. */
export async function inTurns(runs: number, waitd: () => Promise<void>, floor: () => Promise<void>): Promise<void> {
  for (let run = 0; run < runs; run += 1)
    for (const side of run % 2 === 0 ? [waitd, floor] : [floor, waitd]) await side();
}
