import type { Comparison } from './compare.ts';

const HEADINGS = ['end of a process to its client', 'p50', 'spread', 'p99', 'to waitd', 'spread', 'target', ''];

/** One line per side, waitd first. */
export function tableOf(comparisons: readonly Comparison[]): string {
  const rows = [HEADINGS, ...comparisons.map(rowOf)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

function rowOf({ name, by, version, p50Us, p99Us, ratio, atLeast, met }: Comparison): string[] {
  return [
    `${name} ${version}, ${by}`,
    milliseconds(p50Us.median),
    `${digits(p50Us.min / 1000)}..${digits(p50Us.max / 1000)}`,
    milliseconds(p99Us),
    ratio === null ? '-' : digits(ratio.median),
    ratio === null ? '' : `${digits(ratio.min)}..${digits(ratio.max)}`,
    atLeast === null ? '' : `>= ${atLeast}`,
    met === null ? '' : met ? 'met' : 'missed',
  ];
}

function milliseconds(us: number): string {
  return `${digits(us / 1000)} ms`;
}

/** Formats half a millisecond to seconds in one column. */
function digits(value: number): string {
  return value.toFixed(value < 100 ? 2 : 0);
}
