import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureAgain } from './again.ts';
import { measureBackpressure } from './backpressure.ts';
import { measureBroadcast } from './broadcast.ts';
import { measureConversation } from './conversation.ts';
import { measureExit, measureExitAmongOthers } from './exit.ts';
import { writeFigures } from './figures/figures.ts';
import { measureGrowth } from './growth.ts';
import { measureIdle } from './idle.ts';
import { measureIdleMemory } from './idle-memory.ts';
import { machineLine, machineOf } from './machine.ts';
import { measureMass } from './mass.ts';
import { type Measurement, type Plan, Skipped } from './measure.ts';
import { measureParkedMemory } from './parked-memory.ts';
import { comparePeers } from './peers/main.ts';
import { jsonOf, markdownOf, type Results } from './results.ts';
import { Scene } from './scene.ts';
import { measureSettled } from './settled.ts';
import { soak } from './soak/soak.ts';
import { measureSpawn } from './spawn.ts';
import { measureStart } from './start.ts';
import { measureStops } from './stops.ts';
import { tableOf } from './table.ts';
import { measureTimeouts } from './timeouts.ts';

const HELP = `Measures waitd on this machine beside floors: the least that the kernel and the HTTP server need.

Usage: npm run bench -- [OPTIONS]
       npm run bench -- soak [OPTIONS]    checks that resource use stays flat for long; see soak --help
       npm run bench -- peers [OPTIONS]    compares with supervisord, pm2 and podman; see peers --help

  --runs N         runs per measurement; medians are printed (default 5)
  --quick          3 short runs, to check that the benchmark works
  --only NAME      runs one measurement; repeatable (default: all)
  --json PATH      writes the values and samples of every run to PATH
  --markdown PATH  writes the results as tables to PATH
  --figures DIR    draws the distribution of latencies and their growth as SVG files in DIR
  --profile DIR    writes the daemon's CPU profiles to DIR (a profiled daemon is slower)

Measurements: NAMES
`;

const measurements: Record<string, Measurement> = {
  spawn: measureSpawn,
  exit: measureExit,
  'exit-among': measureExitAmongOthers,
  settled: measureSettled,
  mass: measureMass,
  again: measureAgain,
  broadcast: measureBroadcast,
  'idle-memory': measureIdleMemory,
  'parked-memory': measureParkedMemory,
  timeouts: measureTimeouts,
  idle: measureIdle,
  stops: measureStops,
  start: measureStart,
  growth: measureGrowth,
  backpressure: measureBackpressure,
  conversation: measureConversation,
};
const whole: Plan = {
  runs: 5,
  spawns: 4000,
  exits: 1000,
  loadMs: 4000,
  warmUpMs: 1500,
  handles: 5000,
  timeouts: 19_000,
  growth: [10, 200, 1000, 5000, 10_000, 15_000],
  watchMs: 10_000,
};
const quick: Plan = {
  runs: 3,
  spawns: 500,
  exits: 100,
  loadMs: 500,
  warmUpMs: 500,
  handles: 200,
  timeouts: 200,
  growth: [10, 200, 500],
  watchMs: 2000,
};

interface Options {
  plan: Plan;
  names: string[];
  json: string | undefined;
  markdown: string | undefined;
  figures: string | undefined;
  profile: string | undefined;
}

function optionsOf(argv: string[]): Options | null {
  const { values } = parseArgs({
    args: argv,
    options: {
      runs: { type: 'string' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true },
      json: { type: 'string' },
      markdown: { type: 'string' },
      figures: { type: 'string' },
      profile: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return null;
  const names = values.only ?? Object.keys(measurements);
  const unknown = names.find((name) => !Object.hasOwn(measurements, name));
  if (unknown !== undefined)
    throw new Error(`--only ${unknown}: expected one of ${Object.keys(measurements).join(', ')}`);
  const plan = values.quick ? quick : whole;
  const runs = Number(values.runs ?? plan.runs);
  if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs ${values.runs}: expected a whole number from 1`);
  const { json, markdown, figures, profile } = values;
  return { plan: { ...plan, runs }, names, json, markdown, figures, profile };
}

async function measure(scene: Scene, { plan, names, profile }: Options): Promise<Results> {
  const machine = machineOf();
  console.log(machineLine(machine));
  const floor = scene.buildFloor();
  const results: Results = { machine, plan, measures: [], skipped: [] };
  for (const name of names) {
    console.log(`${name}: ${plan.runs} runs`);
    const path = profile === undefined ? {} : { profile: join(profile, `${name}.cpuprofile`) };
    try {
      results.measures.push(...(await measurements[name]!(scene, floor, { ...plan, ...path })));
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      results.skipped.push({ name, why: error.message });
    }
  }
  return results;
}

function tell({ measures, skipped }: Results): void {
  console.log(`\n${tableOf(measures)}`);
  for (const { what, lacks } of measures) if (lacks !== undefined) console.log(`${what}: ${lacks}`);
  for (const { name, why } of skipped) console.log(`${name}: skipped, ${why}`);
}

async function main(argv: string[]): Promise<void> {
  if (argv[0] === 'peers') return comparePeers(argv.slice(1));
  using scene = new Scene();
  // Ensures that all started processes end with this one, however it ends.
  process.once('exit', () => scene[Symbol.dispose]());
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  if (argv[0] === 'soak') {
    if (!(await soak(scene, argv.slice(1)))) process.exitCode = 1;
    return;
  }
  const options = optionsOf(argv);
  if (options === null) {
    console.log(HELP.replace('NAMES', Object.keys(measurements).join(', ')));
    return;
  }
  const { json, markdown, figures, profile } = options;
  if (profile !== undefined) mkdirSync(profile, { recursive: true });
  const results = await measure(scene, options);
  tell(results);
  if (json !== undefined) writeFileSync(json, jsonOf(results));
  if (markdown !== undefined) writeFileSync(markdown, markdownOf(results));
  if (figures !== undefined)
    for (const name of writeFigures(figures, results.measures)) console.log(join(figures, name));
}

function messageOf(error: unknown): string {
  // The first error is the cause; an error of the cleanup is reported too.
  if (error instanceof SuppressedError) return `${messageOf(error.suppressed)}; then ${messageOf(error.error)}`;
  return error instanceof Error ? error.message : String(error);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`bench: ${messageOf(error)}`);
  process.exitCode = 1;
});
