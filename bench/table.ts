import { type Measure, summaryOf } from './measure.ts';
import type { Spread } from './statistics.ts';

const HEADINGS = ['what', 'waitd', 'spread', 'floor', 'spread', 'ratio', 'spread', 'target', ''];

/** One line for each measure: medians, and between which values the runs lay. */
export function tableOf(measures: readonly Measure[]): string {
  const rows = [HEADINGS, ...measures.map(rowOf)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

function rowOf(measure: Measure): string[] {
  const { what, unit, target } = measure;
  const { waitd, floor, ratio, met } = summaryOf(measure);
  const goal = 'atLeast' in target ? `>= ${target.atLeast.toFixed(2)}` : `<= ${target.atMost.toFixed(2)}`;
  return [
    what,
    `${waitd.median.toFixed(0)} ${unit}`,
    range(waitd, 0),
    floor === null ? '-' : `${floor.median.toFixed(0)} ${unit}`,
    floor === null ? '' : range(floor, 0),
    ratio === null ? '-' : ratio.median.toFixed(2),
    ratio === null ? '' : range(ratio, 2),
    goal,
    met ? 'met' : 'missed',
  ];
}

function range({ min, max }: Spread, digits: number): string {
  return `${min.toFixed(digits)}..${max.toFixed(digits)}`;
}
