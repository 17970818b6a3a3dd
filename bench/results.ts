import type { Machine } from './machine.ts';
import { type Growth, type Measure, type Plan, summaryOf } from './measure.ts';
import { figure, goalOf, range } from './table.ts';

/** The result of one run of the benchmark. */
export interface Results {
  /** The machine before the first run. */
  machine: Machine;
  plan: Plan;
  measures: Measure[];
  /** Measurements that this machine does not allow. */
  skipped: { name: string; why: string }[];
}

/** Everything, for programs: the values and samples of every run. */
export function jsonOf({ machine, plan, measures, skipped }: Results): string {
  const results = measures.map((measure) => ({ ...measure, summary: summaryOf(measure) }));
  const tenths = (_key: string, value: unknown): unknown =>
    typeof value === 'number' && value > 100 ? Math.round(value * 10) / 10 : value;
  const text = JSON.stringify({ machine, plan, results, skipped }, tenths, 2);
  // Lists of numbers are written on one line, because they have thousands of entries.
  return `${text.replaceAll(/\[[-\d.e,\s]+\]/g, (list) => list.replaceAll(/\s+/g, '').replaceAll(',', ', '))}\n`;
}

/** The table and the growths, for documents. */
export function markdownOf({ machine, plan, measures, skipped }: Results): string {
  const { cores, kernel, node, architecture } = machine;
  const version = /^\d+\.\d+/.exec(kernel)?.[0] ?? kernel;
  const growths = measures.flatMap(({ growth }) => growth ?? []);
  const lacking = [
    ...measures.flatMap(({ what, lacks }) => (lacks === undefined ? [] : [`${what}: ${lacks}`])),
    ...skipped.map(({ name, why }) => `${name}: ${why}`),
  ];
  return [
    `Measured on ${cores} cores, Linux ${version}, Node ${node.slice(1)}, ${architecture}; ${plan.runs} runs, median and spread.`,
    '',
    ...markdownTable([['', 'waitd', 'floor', 'ratio', 'target'], ...measures.map(rowOf)]),
    ...growths.flatMap((growth) => ['', `${growth.title}, median:`, '', ...markdownTable(growthRows(growth))]),
    ...(lacking.length === 0 ? [] : ['', 'Not measured on this machine:', '', ...lacking.map((line) => `- ${line}`)]),
    '',
  ].join('\n');
}

function rowOf(measure: Measure): string[] {
  const { waitd, floor, ratio, met } = summaryOf(measure);
  const unit = unitOf(measure.unit);
  return [
    measure.what,
    `${figure(waitd.median)}${unit} (${range(waitd)})`,
    floor === null ? '' : `${figure(floor.median)}${unit} (${range(floor)})`,
    ratio === null ? '' : `${figure(ratio.median)} (${range(ratio)})`,
    `${goalOf({ ...measure, unit: unit.trim() }, '≥', '≤')}, ${met ? 'met' : 'missed'}`,
  ];
}

function growthRows({ of, unit, points }: Growth): string[][] {
  const side = (name: 'waitd' | 'floor'): string[] =>
    points.map((point) => (point[name] === null ? '' : `${figure(point[name])}${unitOf(unit)}`));
  const rows = [
    [of, ...points.map(({ count }) => `${count}`)],
    ['waitd', ...side('waitd')],
  ];
  return points.every(({ floor }) => floor === null) ? rows : [...rows, ['floor', ...side('floor')]];
}

/** Returns the unit with its leading space; a rate has none. */
function unitOf(unit: string): string {
  return unit.startsWith('/') ? unit : ` ${unit.replace(/^us$/, 'µs')}`;
}

function markdownTable([headings, ...rows]: string[][]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(headings!), line(headings!.map(() => '---')), ...rows.map(line)];
}
