import { percentile } from '../statistics.ts';
import { aligned, figure } from '../table.ts';
import type { Sample } from './sample.ts';

export interface Verdict {
  what: string;
  unit: string;
  /** Medians of the thirds of the run. The first third is the warm-up. */
  first: number;
  middle: number;
  last: number;
  /** Largest allowed value of the last third. */
  bound: number;
  tolerance: string;
  flat: boolean;
}

interface Quantity {
  what: string;
  key: keyof Sample;
  unit: string;
  /** Allowed growth from the middle third to the last: a share of the middle third, but at least this amount. */
  share: number;
  least: number;
}

const quantities: readonly Quantity[] = [
  { what: 'resident memory', key: 'residentMiB', unit: 'MiB', share: 0.05, least: 2 },
  { what: 'open descriptors', key: 'descriptors', unit: '', share: 0.05, least: 3 },
  { what: 'journal', key: 'journalMiB', unit: 'MiB', share: 0.05, least: 0.5 },
  { what: 'waitid to EAGAIN, p50', key: 'p50Us', unit: 'us', share: 0.25, least: 20 },
  { what: 'waitid to EAGAIN, p99', key: 'p99Us', unit: 'us', share: 0.5, least: 500 },
];

/** Reports whether the daemon's resource use still grew from the middle third of the run to the last. */
export function verdictsOf(samples: readonly Sample[]): Verdict[] {
  const third = Math.floor(samples.length / 3);
  if (third === 0) throw new Error('too few samples');
  const thirds = [samples.slice(0, third), samples.slice(third, -third), samples.slice(-third)];
  return quantities.map(({ what, key, unit, share, least }) => {
    const medians = thirds.map((some) =>
      percentile(
        some.map((sample) => sample[key]),
        50,
      ),
    );
    const [first, middle, last] = medians as [number, number, number];
    const bound = middle + Math.max(share * middle, least);
    const tolerance = `+${share * 100} % or ${least}${unit && ` ${unit}`}`;
    return { what, unit, first, middle, last, bound, tolerance, flat: last <= bound };
  });
}

export function verdictTable(verdicts: readonly Verdict[]): string {
  return aligned([
    ['what', 'first third', 'middle', 'last', 'at most', 'tolerance', ''],
    ...verdicts.map(({ what, unit, first, middle, last, bound, tolerance, flat }) => [
      what,
      ...[first, middle, last, bound].map((value) => `${figure(value)} ${unit}`.trim()),
      tolerance,
      flat ? 'flat' : 'grown',
    ]),
  ]);
}
