import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { holdSomething } from '../again.ts';
import type { MixedResult, MixedTask } from '../clients/mixed.ts';
import { daemonCommand } from '../daemon.ts';
import { machineLine, machineOf } from '../machine.ts';
import type { Scene } from '../scene.ts';
import { soakPicture } from './picture.ts';
import { Probe } from './probe.ts';
import { lookAt, type Sample } from './sample.ts';
import { verdictsOf, verdictTable } from './verdict.ts';

const HELP = `Puts a mixed client load on one daemon for a long time, and checks that its resource use stays flat.

Usage: npm run bench -- soak [OPTIONS]

  --minutes N    duration (default 30); under 10, the result is printed but not judged
  --json PATH    writes every sample to PATH
  --figures DIR  draws soak.svg in DIR

Exit codes: 0 if resource use is flat and every answer is expected, 1 otherwise.
`;

/** Shorter runs are not judged: their middle third is still part of the warm-up. */
const JUDGED_FROM_MINUTES = 10;

const WORKERS = 10;
const EVERY_MS = 150;

const SAMPLES = 360;
const SHORTEST_PAUSE_MS = 500;

/** Retention as a share of the run, so that additions and removals balance well before the middle third. */
const KEPT_PART = 1 / 15;
const SHORTEST_KEPT_MS = 2000;
const MAX_EVENTS = 20_000;

/** @returns whether resource use stayed flat and every answer was expected */
export async function soak(scene: Scene, argv: string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: argv,
    options: {
      minutes: { type: 'string', default: '30' },
      json: { type: 'string' },
      figures: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return true;
  }
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new Error(`--minutes ${values.minutes}: expected a number above 0`);
  const machine = machineOf();
  console.log(`${machineLine(machine)}\nsoak: ${minutes} minutes`);
  const { samples, mixed } = await run(scene, minutes * 60_000);
  const verdicts = verdictsOf(samples);
  tell(mixed, minutes);
  console.log(`\n${verdictTable(verdicts)}`);
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ machine, minutes, mixed, verdicts, samples }, null, 2)}\n`);
  if (values.figures !== undefined) {
    mkdirSync(values.figures, { recursive: true });
    writeFileSync(join(values.figures, 'soak.svg'), soakPicture(samples));
  }
  const judged = minutes >= JUDGED_FROM_MINUTES;
  if (!judged) console.log(`\nless than ${JUDGED_FROM_MINUTES} minutes: not judged`);
  return mixed.unexpected === 0 && (!judged || verdicts.every(({ flat }) => flat));
}

async function run(scene: Scene, durationMs: number): Promise<{ samples: Sample[]; mixed: MixedResult }> {
  const { socket, args } = daemonCommand(scene);
  const kept = `${Math.max(SHORTEST_KEPT_MS, Math.round(durationMs * KEPT_PART))}ms`;
  const retention = ['--keep-collected', kept, '--keep-uncollected', kept, '--keep-events', kept];
  await using daemon = await scene.serve(socket, ...args, ...retention, '--max-events', `${MAX_EVENTS}`);
  const held = await holdSomething(scene, socket);
  const probe = new Probe(socket, held.id);
  const task: MixedTask = { socket, workers: WORKERS, everyMs: EVERY_MS, durationMs };
  const load = scene.client<MixedTask, MixedResult>('mixed', task);
  const samples = await sampleUntil(load, daemon.pid, probe, Math.max(SHORTEST_PAUSE_MS, durationMs / SAMPLES));
  await probe.stop();
  scene.end(held.process.pid);
  return { samples, mixed: await load };
}

async function sampleUntil(load: Promise<unknown>, pid: number, probe: Probe, everyMs: number): Promise<Sample[]> {
  const samples: Sample[] = [];
  const start = performance.now();
  let over = false;
  const end = load.finally(() => {
    over = true;
  });
  for (;;) {
    await Promise.race([end, setTimeout(everyMs)]);
    if (over) return samples;
    const latencies = probe.take();
    // On a busy machine an answer may take longer than this. The load reports missing answers.
    if (latencies === null) continue;
    samples.push({ at: (performance.now() - start) / 1000, ...lookAt(pid), ...latencies });
  }
}

function tell({ done, unexpected, examples }: MixedResult, minutes: number): void {
  const all = Object.values(done).reduce((sum, count) => sum + count, 0);
  console.log(`${all} operations, ${(all / minutes / 60).toFixed(1)} per second, ${unexpected} unexpected answers`);
  for (const [name, count] of Object.entries(done)) console.log(`  ${name} ${count}`);
  for (const example of examples) console.log(`unexpected: ${example}`);
}
