import type { Scale } from './scale.ts';

export interface Axis {
  /** The title of the axis, with its unit. */
  label: string;
  scale: Scale;
}

export interface Line {
  name: string;
  color: string;
  points: readonly { x: number; y: number }[];
  /** Whether to mark the points: they are few, and values between them were not measured. */
  dots?: boolean;
}

export interface Chart {
  title: string;
  x: Axis;
  y: Axis;
  lines: readonly Line[];
}

/** The same colour for the same side in every picture, distinguishable without red and green. */
export const colors = { waitd: '#0b5fc0', floor: '#c2570c' };

const WIDTH = 720;
/** The height of a single chart, and of one among several. */
const HEIGHT = { alone: 380, among: 280 };
const INNER = { left: 76, right: 24, top: 72, bottom: 56 };
/** Approximate width of a letter of the legend, since nothing here measures text. */
const LETTER = 7;

/** Returns one or several charts, one below the other, as an SVG with a light background of its own. */
export function pictureOf(charts: readonly Chart[]): string {
  const each = charts.length === 1 ? HEIGHT.alone : HEIGHT.among;
  const height = each * charts.length;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(charts.map(({ title }) => title).join('; '))}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" fill="#24292f">`,
    `<rect width="${WIDTH}" height="${height}" rx="6" fill="#ffffff" stroke="#d0d7de"/>`,
    ...charts.flatMap((chart, at) => [`<g transform="translate(0 ${at * each})">`, ...drawn(chart, each), '</g>']),
    '</svg>',
    '',
  ].join('\n');
}

function drawn({ title, x, y, lines }: Chart, height: number): string[] {
  const right = WIDTH - INNER.right;
  const bottom = height - INNER.bottom;
  const across = (value: number): string => (INNER.left + x.scale.place(value) * (right - INNER.left)).toFixed(1);
  const down = (value: number): string => (bottom - y.scale.place(value) * (bottom - INNER.top)).toFixed(1);
  const middle = (INNER.top + bottom) / 2;
  return [
    `<text x="${INNER.left}" y="28" font-size="15" font-weight="600">${escaped(title)}</text>`,
    ...legend(lines),
    '<g stroke="#e4e8ec">',
    ...x.scale.ticks.map(
      ({ value }) => `<line x1="${across(value)}" y1="${INNER.top}" x2="${across(value)}" y2="${bottom}"/>`,
    ),
    ...y.scale.ticks.map(
      ({ value }) => `<line x1="${INNER.left}" y1="${down(value)}" x2="${right}" y2="${down(value)}"/>`,
    ),
    '</g>',
    `<path d="M${INNER.left} ${INNER.top}V${bottom}H${right}" fill="none" stroke="#57606a"/>`,
    '<g text-anchor="middle">',
    ...x.scale.ticks.map(({ value, label }) => `<text x="${across(value)}" y="${bottom + 18}">${label}</text>`),
    `<text x="${(INNER.left + right) / 2}" y="${bottom + 42}">${escaped(x.label)}</text>`,
    `<text x="18" y="${middle}" transform="rotate(-90 18 ${middle})">${escaped(y.label)}</text>`,
    '</g>',
    '<g text-anchor="end">',
    ...y.scale.ticks.map(({ value, label }) => `<text x="${INNER.left - 8}" y="${down(value)}" dy="4">${label}</text>`),
    '</g>',
    ...lines.flatMap(({ color, points, dots }) => [
      `<polyline points="${points.map((point) => `${across(point.x)},${down(point.y)}`).join(' ')}" fill="none" stroke="${color}" stroke-width="2" stroke-linejoin="round"/>`,
      ...(dots
        ? points.map((point) => `<circle cx="${across(point.x)}" cy="${down(point.y)}" r="3.5" fill="${color}"/>`)
        : []),
    ]),
  ];
}

function legend(lines: readonly Line[]): string[] {
  let left = INNER.left;
  return lines.flatMap(({ name, color }) => {
    const at = left;
    left += 28 + name.length * LETTER + 20;
    return [
      `<line x1="${at}" y1="50" x2="${at + 20}" y2="50" stroke="${color}" stroke-width="3"/>`,
      `<text x="${at + 28}" y="54">${escaped(name)}</text>`,
    ];
  });
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
