import type { Measure } from '../measure.ts';
import { quantiles } from '../statistics.ts';
import { type Chart, colors, type Line } from './chart.ts';
import { logarithmic, nines } from './scale.ts';

/** The number of points of a curve. */
const POINTS = 240;

/** Draws the distribution of a latency: which share of the cases took at most how long. */
export function distributionOf({ what, samples }: Measure & Required<Pick<Measure, 'samples'>>): Chart {
  const sides = Object.entries({ waitd: samples.waitd, floor: samples.floor }).filter(
    ([, values]) => values.length > 1,
  );
  const lines = sides.map(([name, values]): Line => {
    const shares = sharesUpTo(1 - 1 / values.length);
    const latencies = quantiles(values, shares);
    return {
      name,
      color: colors[name as 'waitd' | 'floor'],
      points: shares.map((share, at) => ({ x: latencies[at]!, y: share })),
    };
  });
  const points = lines.flatMap((line) => line.points);
  return {
    title: titleOf(what),
    x: { label: 'latency, µs', scale: logarithmic(points.map(({ x }) => x)) },
    y: { label: 'share of the cases that took at most so long', scale: nines(Math.max(...points.map(({ y }) => y))) },
    lines,
  };
}

/** Removes the percentile from a name, because the samples cover all of them. */
export function titleOf(what: string): string {
  return what.replace(/, p\d+$/, '');
}

/** Spaces the points as closely in the tail as before it. */
function sharesUpTo(greatest: number): number[] {
  const end = Math.log10(1 - greatest);
  return Array.from({ length: POINTS }, (_, at) => 1 - 10 ** ((end * at) / (POINTS - 1)));
}
