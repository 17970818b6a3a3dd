import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Daemon, eventually, temporaryDirectory } from '../support/harness.ts';
import { Caller } from './crash/caller.ts';
import type { Report } from './crash/client.ts';

const CLIENT = join(import.meta.dirname, 'crash/client.ts');
const kills = Number(process.env.CRASH_KILLS ?? 100);
const upgrades = Number(process.env.CRASH_UPGRADES ?? 100);
const seed = Number(process.env.CRASH_SEED ?? Date.now() % 1_000_000);

/** When the daemon was not there, in Unix milliseconds. */
interface Window {
  from: number;
  to: number;
}

/** How far clock readings may be apart. */
const TOLERANCE_MS = 100;

/** How long after its last clock reading a program may end, and its end be written down, on a machine that is busy. */
const LATENESS_MS = 1000;

/** mulberry32: the same moments again for the same seed. */
function random(state: number): () => number {
  let at = state;
  return () => {
    at = (at + 0x6d2b79f5) | 0;
    let x = Math.imul(at ^ (at >>> 15), 1 | at);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function ordeal(t: Test, { kills, upgrades }: { kills: number; upgrades: number }) {
  const directory = temporaryDirectory(t);
  const traces = join(directory, 'traces');
  writeFileSync(traces, '');
  let daemon = await Daemon.start(t, { directory });
  const client = fork(CLIENT, [daemon.socket, traces], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  t.teardown(() => client.kill('SIGKILL'));
  const reported = once(client, 'message');
  const windows: Window[] = [];
  const draw = random(seed);
  let left = { kills, upgrades };
  while (left.kills + left.upgrades > 0) {
    await setTimeout(20 + draw() * 150);
    if (draw() * (left.kills + left.upgrades) < left.kills) {
      left = { ...left, kills: left.kills - 1 };
      const from = Date.now();
      daemon.child.kill('SIGKILL');
      await daemon.exited;
      daemon = await Daemon.start(t, { directory });
      windows.push({ from, to: Date.now() });
    } else {
      left = { ...left, upgrades: left.upgrades - 1 };
      const { pid } = daemon;
      await daemon.upgrade();
      if (daemon.pid !== pid) t.fail('an upgrade keeps the pid');
    }
  }
  client.send('stop');
  const [report] = (await reported) as [Report];
  return { daemon, directory, report, windows, traces: tracesIn(traces) };
}

/** What the programs left behind: how often each ran, and when it was about to end. */
function tracesIn(file: string): Map<string, { starts: number; end: number | null }> {
  const found = new Map<string, { starts: number; end: number | null }>();
  for (const line of readFileSync(file, 'utf8').trim().split('\n')) {
    const [token = '', what, at] = line.split(' ');
    const entry = found.get(token) ?? { starts: 0, end: null };
    found.set(token, entry);
    if (what === 'start') entry.starts += 1;
    else entry.end = Number(at);
  }
  return found;
}

function checkAccount(t: Test, { report, windows, traces }: Awaited<ReturnType<typeof ordeal>>): void {
  const { learnt, heard } = report;
  const unknown = learnt.filter(({ outcome }) => outcome.reason === 'unknown');
  t.comment(
    `${learnt.length} processes, ${heard.length} events, ${report.connections} connections, ${report.restarts} calls asked again, ` +
      `${windows.length} kills, ${unknown.length} unknown, ${report.gaps.length} gaps, seed ${seed}`,
  );
  t.same(
    learnt.filter(
      ({ outcome, expected }) => outcome.reason !== 'unknown' && JSON.stringify(outcome) !== JSON.stringify(expected),
    ),
    [],
    'every outcome is the right one, or not known',
  );
  t.same(
    learnt.filter(({ token, outcome }) => (traces.get(token)?.starts ?? 0) !== 1 && outcome.reason !== 'unknown'),
    [],
    'what has an outcome ran once',
  );
  t.same(
    [...traces].filter(([, { starts }]) => starts > 1),
    [],
    'nothing ran twice',
  );
  t.same(
    unknown.filter(({ token, askedAt }) => {
      const end = traces.get(token)?.end ?? null;
      return !windows.some(({ from, to }) =>
        end === null ? to >= askedAt : end >= from - LATENESS_MS && end <= to + TOLERANCE_MS,
      );
    }),
    [],
    'unknown is only what ended while no daemon was there, or was cut short in its beginning',
  );
  t.same(
    learnt.filter(({ collected }) => collected === 'twice'),
    [],
    'no status is collected twice',
  );
  const seqs = heard.map(({ seq }) => seq);
  t.ok(
    seqs.every((seq, at) => at === 0 || seq > seqs[at - 1]!),
    'each event once, in order',
  );
  const byHandle = Map.groupBy(heard, ({ handle }) => handle);
  t.same(
    learnt.filter(({ id }) => {
      const names = byHandle.get(id)?.map(({ event }) => event) ?? [];
      const once = (name: string): boolean => names.filter((each) => each === name).length === 1;
      return !(names[0] === 'opened' && once('opened') && once('exited') && names.at(-1) === 'closed');
    }),
    [],
    'every handle was opened once, ended once, and closed',
  );
}

async function checkRest(t: Test, { daemon, directory, report }: Awaited<ReturnType<typeof ordeal>>): Promise<void> {
  const caller = new Caller(daemon.socket);
  const heard = new Set(report.heard.map(({ seq }) => seq));
  const missed: unknown[] = [];
  for await (const event of caller.events()) if (!heard.has(event.seq)) missed.push(event);
  t.same(missed, [], 'whatever the journal holds was heard');
  t.same((await caller.get('/v1/handles')).body.handles, []);
  caller.close();
  await eventually(() => daemon.zombies.length === 0);
  await eventually(() => readdirSync(join(directory, 'state', 'output')).length === 0);
  t.equal(await daemon.stop(), 0);
  t.same(readdirSync(join(directory, 'state')).sort(), ['journal.sqlite', 'lock', 'node.json', 'output', 'token']);
}

t.test(`killed ${kills} times and replaced ${upgrades} times at random moments`, async (t) => {
  const result = await ordeal(t, { kills, upgrades });
  checkAccount(t, result);
  await checkRest(t, result);
});

t.test('replaced only: nothing is unknown, and nobody changes parents', async (t) => {
  const result = await ordeal(t, { kills: 0, upgrades: Math.ceil(upgrades / 10) });
  checkAccount(t, result);
  t.same(
    result.report.learnt.filter(
      ({ outcome, relation, collected }) =>
        outcome.reason === 'unknown' || relation !== 'child' || collected !== 'once',
    ),
    [],
  );
  t.same(result.report.gaps, []);
  await checkRest(t, result);
});
