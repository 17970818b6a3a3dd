import { type Measure, summaryOf } from './measure.ts';
import type { Spread } from './statistics.ts';

const HEADINGS = ['what', 'waitd', 'spread', 'floor', 'spread', 'ratio', 'spread', 'target', ''];

/** One line per measure: medians, and the range of the runs. */
export function tableOf(measures: readonly Measure[]): string {
  return aligned([HEADINGS, ...measures.map(rowOf)]);
}

/** Aligns the first column to the left and the others to the right. */
export function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

function rowOf(measure: Measure): string[] {
  const { what, unit } = measure;
  const { waitd, floor, ratio, met } = summaryOf(measure);
  return [
    what,
    `${figure(waitd.median)} ${unit}`,
    range(waitd),
    floor === null ? '-' : `${figure(floor.median)} ${unit}`,
    floor === null ? '' : range(floor),
    ratio === null ? '-' : figure(ratio.median),
    ratio === null ? '' : range(ratio),
    goalOf(measure, '>=', '<='),
    met ? 'met' : 'missed',
  ];
}

/** The target. Without a floor to compare with, it has the unit of the values. */
export function goalOf({ target, floor, unit }: Measure, atLeast: string, atMost: string): string {
  const [sign, value] = 'atLeast' in target ? [atLeast, target.atLeast] : [atMost, target.atMost];
  return `${sign} ${figure(value)}${floor === null ? ` ${unit}` : ''}`;
}

export function range({ min, max }: Spread): string {
  return `${figure(min)}..${figure(max)}`;
}

/** Three significant digits, or all digits before the decimal point. */
export function figure(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}
