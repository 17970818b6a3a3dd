/** Prints where the time of a CPU profile was spent, by function: `node bench/profile.ts FILE [LINES]`. */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

interface CallFrame {
  functionName: string;
  url: string;
  lineNumber: number;
}

interface Profile {
  nodes: { id: number; callFrame: CallFrame; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));

function nameOf({ functionName, url, lineNumber }: CallFrame): string {
  const name = functionName === '' ? '(anonymous)' : functionName;
  if (url === '') return name;
  const place = url.startsWith('file:') ? relative(ROOT, fileURLToPath(url)).replace(/^.*node_modules\//, '') : url;
  return `${name} ${place}:${lineNumber + 1}`;
}

interface Cost {
  name: string;
  /** The share of the daemon's busy time in the function itself. */
  self: number;
  /** The share in the function and all its callees. */
  total: number;
}

function costsOf({ nodes, samples, timeDeltas }: Profile): { busyMs: number; costs: Cost[] } {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const selfOf = new Map<number, number>();
  let busy = 0;
  for (const [at, id] of samples.entries()) {
    if (byId.get(id)!.callFrame.functionName === '(idle)') continue;
    const delta = Math.max(0, timeDeltas[at] ?? 0);
    selfOf.set(id, (selfOf.get(id) ?? 0) + delta);
    busy += delta;
  }
  const sums = new Map<string, { self: number; total: number }>();
  const walk = (id: number, above: ReadonlySet<string>): number => {
    const { callFrame, children = [] } = byId.get(id)!;
    const name = nameOf(callFrame);
    const self = selfOf.get(id) ?? 0;
    const within = new Set(above).add(name);
    const total = children.reduce((sum, child) => sum + walk(child, within), self);
    const sum = sums.get(name) ?? { self: 0, total: 0 };
    // A recursive function counts once.
    sums.set(name, { self: sum.self + self, total: sum.total + (above.has(name) ? 0 : total) });
    return total;
  };
  walk(nodes[0]!.id, new Set());
  const costs = [...sums].map(([name, { self, total }]) => ({ name, self: self / busy, total: total / busy }));
  return { busyMs: busy / 1000, costs };
}

function show(title: string, costs: Cost[], by: 'self' | 'total', lines: number): void {
  console.log(`\nby ${title}\n   self   total`);
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`.padStart(7);
  for (const { name, self, total } of costs.toSorted((a, b) => b[by] - a[by]).slice(0, lines))
    console.log(`${percent(self)} ${percent(total)}  ${name}`);
}

const [file, lines = '25'] = process.argv.slice(2);
if (file === undefined) throw new Error('usage: node bench/profile.ts FILE [LINES]');
const { busyMs, costs } = costsOf(JSON.parse(readFileSync(file, 'utf8')) as Profile);
console.log(`busy for ${busyMs.toFixed(0)} ms`);
show('self time', costs, 'self', Number(lines));
const ours = costs.filter(({ name }) => / (src|routes|schemas)\//.test(name));
show('total time, the daemon’s own functions', ours, 'total', Number(lines));
