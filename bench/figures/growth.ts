import type { Growth } from '../measure.ts';
import { type Chart, colors, type Line } from './chart.ts';
import { linear, logarithmic } from './scale.ts';

/** Draws the cost of one operation against the number of something else. */
export function growthChartOf({ title, of, unit, points }: Growth): Chart {
  const line = (name: 'waitd' | 'floor'): Line[] => {
    const known = points.flatMap((point) => (point[name] === null ? [] : [{ x: point.count, y: point[name] }]));
    return known.length === 0 ? [] : [{ name, color: colors[name], points: known, dots: true }];
  };
  const lines = [...line('waitd'), ...line('floor')];
  return {
    title,
    x: { label: of, scale: logarithmic(points.map(({ count }) => count)) },
    y: {
      label: `median, ${unit === 'us' ? 'µs' : unit}`,
      scale: linear(lines.flatMap((one) => one.points.map(({ y }) => y))),
    },
    lines,
  };
}
