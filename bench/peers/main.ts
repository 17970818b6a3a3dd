import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { Skipped } from '../measure.ts';
import { Scene } from '../scene.ts';
import { compare, comparisonOf, type Side } from './compare.ts';
import { buildChild, type Candidate } from './peer.ts';
import { pm2 } from './pm2.ts';
import { podman } from './podman.ts';
import { supervisord } from './supervisord.ts';
import { tableOf } from './table.ts';
import { waitd } from './waitd.ts';

const HELP = `Measures the time from an exit to the client's notification, for waitd and other process managers.

Usage: npm run bench -- peers [OPTIONS]

  --quick         3 short runs, to check that the benchmark works
  --only NAME     runs one of supervisord, pm2, podman; repeatable (default: all)
  --json PATH     adds all values to the JSON file at PATH, as "peers"

Takes about 7 minutes. Installs the other programs from Debian and npm into temporary directories. If podman and runc
are missing, it installs them on the system, as root.
`;

const peers: readonly Candidate[] = [supervisord, pm2, podman];

function optionsOf(argv: string[]): { quick: boolean; chosen: readonly Candidate[]; json?: string } | null {
  const { values } = parseArgs({
    args: argv,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return null;
  const names = peers.map(({ name }) => name);
  const unknown = values.only?.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: expected one of ${names.join(', ')}`);
  return {
    quick: values.quick,
    chosen: peers.filter(({ name }) => values.only?.includes(name) ?? true),
    ...(values.json !== undefined && { json: values.json }),
  };
}

/** `npm run bench -- peers …` */
export async function comparePeers(argv: string[]): Promise<void> {
  const options = optionsOf(argv);
  if (options === null) {
    console.log(HELP);
    return;
  }
  const { quick, chosen, json } = options;
  const runs = quick ? 3 : 5;
  using left = new DisposableStack();
  using scene = new Scene();
  // Ensures that all started processes end with this one, however it ends.
  process.once('exit', () => {
    scene[Symbol.dispose]();
    left.dispose();
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

  const machine = { cores: cpus().length, kernel: release(), node: process.version, load: loadavg() };
  console.log(
    `${machine.cores} cores, Linux ${machine.kernel}, Node ${machine.node}, load ${machine.load[0]!.toFixed(2)}`,
  );
  await using ending = new AsyncDisposableStack();
  const stage = { scene, ...buildChild(scene), ending, left };
  const sides: Side[] = [];
  for (const candidate of [waitd, ...chosen])
    try {
      sides.push({ candidate, peer: await candidate.start(stage), runs: [] });
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      console.log(`${candidate.name}: skipped, ${error.message}`);
    }
  console.log(`${sides.map(({ candidate }) => candidate.name).join(', ')}: ${runs} runs`);
  await compare(sides, runs, quick);
  const comparisons = sides.map((side) => comparisonOf(side, sides[0]!));
  console.log(`\n${tableOf(comparisons)}`);
  if (json === undefined) return;
  const before: unknown = existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')) : {};
  writeFileSync(json, `${JSON.stringify({ ...(before as object), peers: { machine, runs, comparisons } }, null, 2)}\n`);
}
