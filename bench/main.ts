import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureAgain } from './again.ts';
import { measureBroadcast } from './broadcast.ts';
import { measureExit, measureExitAmongOthers } from './exit.ts';
import { measureIdle } from './idle.ts';
import { measureIdleMemory } from './idle-memory.ts';
import { measureMass } from './mass.ts';
import { type Measure, type Measurement, type Plan, Skipped, summaryOf } from './measure.ts';
import { measureParkedMemory } from './parked-memory.ts';
import { Scene } from './scene.ts';
import { measureSpawn } from './spawn.ts';
import { measureStart } from './start.ts';
import { measureStops } from './stops.ts';
import { tableOf } from './table.ts';

const HELP = `Measures waitd beside what the kernel and the HTTP server can do at best, on this machine.

Usage: npm run bench -- [OPTIONS]

  --runs N        how often each is measured; medians are told (default 5)
  --quick         3 short runs: shows that it works, not how fast
  --only NAME     one of spawn, exit, exit-among, mass, again, broadcast, idle-memory, parked-memory, idle, stops, start;
                  repeatable (default: all)
  --json PATH     writes every run's figures there
  --profile DIR   writes the daemon's CPU profiles there (a profiled daemon is slower)
`;

const measurements: Record<string, Measurement> = {
  spawn: measureSpawn,
  exit: measureExit,
  'exit-among': measureExitAmongOthers,
  mass: measureMass,
  again: measureAgain,
  broadcast: measureBroadcast,
  'idle-memory': measureIdleMemory,
  'parked-memory': measureParkedMemory,
  idle: measureIdle,
  stops: measureStops,
  start: measureStart,
};
const whole: Plan = {
  runs: 5,
  spawns: 4000,
  exits: 1000,
  loadMs: 4000,
  warmUpMs: 1500,
  handles: 5000,
  watchMs: 10_000,
};
const quick: Plan = { runs: 3, spawns: 500, exits: 100, loadMs: 500, warmUpMs: 500, handles: 200, watchMs: 2000 };

function optionsOf(argv: string[]): { plan: Plan; names: string[]; json?: string; profile?: string } | null {
  const { values } = parseArgs({
    args: argv,
    options: {
      runs: { type: 'string' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true },
      json: { type: 'string' },
      profile: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return null;
  const names = values.only ?? Object.keys(measurements);
  const unknown = names.find((name) => !Object.hasOwn(measurements, name));
  if (unknown !== undefined) throw new Error(`--only ${unknown}: it is one of ${Object.keys(measurements).join(', ')}`);
  const plan = values.quick ? quick : whole;
  const runs = Number(values.runs ?? plan.runs);
  if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs ${values.runs}: it is a whole number from 1`);
  return {
    plan: { ...plan, runs },
    names,
    ...(values.json !== undefined && { json: values.json }),
    ...(values.profile !== undefined && { profile: values.profile }),
  };
}

function machine(): Record<string, unknown> {
  return {
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    load: loadavg().map((one) => one.toFixed(2)),
  };
}

async function main(argv: string[]): Promise<void> {
  const options = optionsOf(argv);
  if (options === null) {
    console.log(HELP);
    return;
  }
  const { plan, names, json, profile } = options;
  using scene = new Scene();
  // However this process ends, what it started ends with it.
  process.once('exit', () => scene[Symbol.dispose]());
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  if (profile !== undefined) mkdirSync(profile, { recursive: true });

  const before = machine();
  console.log(`${before.cores} cores, Linux ${before.kernel}, Node ${before.node}, load ${loadavg()[0]!.toFixed(2)}`);
  const floor = scene.buildFloor();
  const measures: Measure[] = [];
  for (const name of names) {
    console.log(`${name}: ${plan.runs} runs`);
    const path = profile === undefined ? {} : { profile: join(profile, `${name}.cpuprofile`) };
    try {
      measures.push(...(await measurements[name]!(scene, floor, { ...plan, ...path })));
    } catch (error) {
      if (!(error instanceof Skipped)) throw error;
      console.log(`${name}: skipped, ${error.message}`);
    }
  }
  console.log(`\n${tableOf(measures)}`);
  if (json === undefined) return;
  const results = measures.map((measure) => ({ ...measure, summary: summaryOf(measure) }));
  writeFileSync(json, `${JSON.stringify({ machine: before, plan, results }, null, 2)}\n`);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
