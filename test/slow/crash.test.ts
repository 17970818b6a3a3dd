import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Caller } from '../support/caller.ts';
import { Daemon, eventually, temporaryDirectory } from '../support/harness.ts';
import type { Heard } from '../support/listener.ts';
import { random } from '../support/random.ts';
import { type Trace, tracesIn, uptime, uptimeAt } from '../support/traces.ts';
import type { Learnt, Report } from './crash/client.ts';

const CLIENT = join(import.meta.dirname, 'crash/client.ts');
const kills = Number(process.env.CRASH_KILLS ?? 100);
const upgrades = Number(process.env.CRASH_UPGRADES ?? 100);
const seed = Number(process.env.CRASH_SEED ?? Date.now() % 1_000_000);

/** An interval without a daemon, in the time of {@link uptime}. */
interface Window {
  from: number;
  to: number;
}

/** Longest time from a program's reading of the clock to its exit, and to the write of that, on a busy machine. */
const TOLERANCE_MS = 1000;

/** Longer than a start or a replacement takes. */
const START_MS = 700;

interface Result {
  daemon: Daemon;
  directory: string;
  report: Report;
  windows: Window[];
  /** The intervals of the upgrades. */
  upgrades: Window[];
  traces: Map<string, Trace>;
}

/** Runs one daemon after another on the same state, while the client works with them. */
class Ordeal {
  readonly windows: Window[] = [];
  readonly upgrades: Window[] = [];
  readonly #t: Test;
  readonly #directory: string;
  readonly #draw: () => number;
  daemon: Daemon;

  constructor(t: Test, directory: string, daemon: Daemon, draw: () => number) {
    this.#t = t;
    this.#directory = directory;
    this.daemon = daemon;
    this.#draw = draw;
  }

  /** Kills it during its work, during its replacement, or again during the start that follows. */
  async kill(): Promise<void> {
    const from = uptime();
    const how = this.#draw();
    if (how < 0.25) {
      this.daemon.child.kill('SIGHUP');
      await setTimeout(this.#draw() * START_MS);
    }
    await this.daemon.kill();
    if (how > 0.75) {
      const short = Daemon.begin(this.#t, { directory: this.#directory });
      await setTimeout(this.#draw() * START_MS);
      await short.kill();
    }
    this.daemon = await Daemon.start(this.#t, { directory: this.#directory });
    this.windows.push({ from, to: uptime() });
  }

  async upgrade(): Promise<void> {
    const { pid } = this.daemon;
    const from = uptime();
    await this.daemon.upgrade();
    this.upgrades.push({ from, to: uptime() });
    if (this.daemon.pid !== pid) this.#t.fail('an upgrade keeps the pid');
  }
}

async function endure(t: Test, { kills, upgrades }: { kills: number; upgrades: number }): Promise<Result> {
  t.comment(`CRASH_SEED=${seed}`);
  const directory = temporaryDirectory(t);
  const file = join(directory, 'traces');
  writeFileSync(file, '');
  const draw = random(seed);
  const ordeal = new Ordeal(t, directory, await Daemon.start(t, { directory }), draw);
  const client = fork(CLIENT, [ordeal.daemon.socket, file], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  t.teardown(() => client.kill('SIGKILL'));
  const reported = Promise.race([
    once(client, 'message'),
    once(client, 'exit').then(([code, signal]) => {
      throw new Error(`the client ended with ${code ?? signal}`);
    }),
  ]);
  reported.catch(() => {}); // checked below
  for (let left = { kills, upgrades }; left.kills + left.upgrades > 0 && client.connected; ) {
    await setTimeout(draw() ** 2 * 250);
    if (draw() * (left.kills + left.upgrades) < left.kills) {
      left = { ...left, kills: left.kills - 1 };
      await ordeal.kill();
    } else {
      left = { ...left, upgrades: left.upgrades - 1 };
      await ordeal.upgrade();
    }
  }
  if (client.connected) client.send('stop');
  const [report] = (await reported) as [Report];
  const { daemon, windows, upgrades: replaced } = ordeal;
  return { daemon, directory, report, windows, upgrades: replaced, traces: tracesIn(file) };
}

/** Resolves as soon as a file with this name exists. */
function appears(directory: string, name: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(directory, (_, changed) => {
      if (changed !== name) return;
      watcher.close();
      resolve();
    });
  });
}

/** Compares the outcome of each program, as the client received it, with the program's own record. */
function checkPrograms(t: Test, { report, windows, traces }: Result): void {
  const { learnt, heard } = report;
  const reapedAt = new Map(
    heard.filter(({ event }) => event === 'reaped').map(({ handle, at }) => [handle, uptimeAt(at)]),
  );
  const isUnknown = ({ outcome }: Learnt): boolean => outcome.reason === 'unknown';
  t.comment(
    `${learnt.length} processes, ${learnt.filter(isUnknown).length} unknown, ${heard.length} events, ` +
      `${report.connections} connections, ${windows.length} kills, gaps: ${JSON.stringify(report.gaps)}, ` +
      `asked again: ${JSON.stringify(report.askedAgain)}`,
  );
  const none = (wrong: (one: Learnt) => boolean, what: string): void =>
    void t.same(
      learnt.filter(wrong).map((one) => ({ ...one, trace: traces.get(one.token), reapedAt: reapedAt.get(one.id) })),
      [],
      what,
    );
  none(
    (one) => !isUnknown(one) && JSON.stringify(one.outcome) !== JSON.stringify(one.expected),
    'every outcome is right or unknown',
  );
  none((one) => !isUnknown(one) && !traces.has(one.token), 'nothing has an outcome that never ran');
  none(
    ({ token, pid }) => pid !== 0 && traces.has(token) && traces.get(token)!.pids[0] !== pid,
    'each has its own pid',
  );
  t.same(
    [...traces].filter(([, { pids }]) => pids.length > 1),
    [],
    'nothing ran twice',
  );
  none(
    (one) =>
      isUnknown(one) && !windows.some((window) => mayHide(window, one, traces.get(one.token), reapedAt.get(one.id))),
    'an outcome is unknown only after an exit without a daemon or an interrupted start',
  );
  none(({ collected }) => collected === 'twice', 'no status is collected twice');
  none(({ collected }) => collected === 'lost', 'no status is collected by a lost answer');
}

/**
 * Whether it ended while no daemon ran, or the daemon was killed while it started the program. The kernel reports an
 * orphan's status only after init has reaped it, which may take seconds: it may have ended before the kill, too.
 */
function mayHide(
  { from, to }: Window,
  { askedAt, answeredAt }: Learnt,
  trace: Trace | undefined,
  reapedAt: number | undefined,
): boolean {
  const endedAt = trace?.endedAt ?? null;
  const endedUnseen = endedAt !== null && endedAt >= from - TOLERANCE_MS && endedAt <= to;
  const reapedUnseen = endedAt !== null && endedAt <= to && reapedAt !== undefined && reapedAt >= from;
  const cutShort = askedAt <= to && answeredAt >= from && (trace === undefined || trace.startedAt <= to);
  return endedUnseen || reapedUnseen || cutShort;
}

/** How late a running daemon may be. One that is killed before that may not have enforced a deadline. */
const LATEST_MS = 250;

/** The clock of the traces is exact to 10 ms at both ends. */
const GRAIN_MS = 20;

/** Checks that no deadline came early, or later than the daemon was away. */
function checkDeadlines(t: Test, { report, windows, upgrades, traces }: Result): void {
  const away = [...windows, ...upgrades];
  const bounded = report.learnt.flatMap(({ token, deadline }) => {
    const { startedAt, endedAt = null } = traces.get(token) ?? {};
    if (deadline === undefined || startedAt === undefined || endedAt === null) return [];
    // A timeout counts from before the program has read the clock.
    const to = deadline.kind === 'timeout' ? Math.min(deadline.to, startedAt) : deadline.to;
    return [{ token, endedAt, ...deadline, to }];
  });
  const early = bounded.filter(({ endedAt, from, ms }) => endedAt < from + ms - GRAIN_MS);
  t.same(early, [], 'none was ended early');
  const lateBy = ({ kind, endedAt, to, ms }: (typeof bounded)[number]): number => {
    let due = to + ms;
    for (const window of away.sort((one, other) => one.from - other.from)) {
      // A lease starts anew with each image of the daemon. A timeout waits for the next one.
      if (kind === 'lease' && window.from <= due && window.to > to) due = Math.max(due, window.to + ms);
      else if (kind === 'timeout' && window.from <= due + LATEST_MS && due < window.to) due = window.to;
    }
    return endedAt - due;
  };
  const late = bounded.map((each) => ({ ...each, lateBy: lateBy(each) })).sort((a, b) => b.lateBy - a.lateBy);
  const [first] = late;
  t.comment(`${bounded.length} deadlines, the latest by ${first?.lateBy} ms (${first?.kind})`);
  t.ok(bounded.length > 0, 'deadlines were met');
  t.same(
    late.filter(({ lateBy }) => lateBy > TOLERANCE_MS),
    [],
    'none was ended late',
  );
}

/** Checks the subscriber's events: they must equal those of a daemon that never died. */
function checkEvents(t: Test, { learnt, heard, gaps }: Report): void {
  t.ok(
    heard.every(({ seq }, at) => at === 0 || seq > heard[at - 1]!.seq),
    'each event once, in order',
  );
  t.same(
    gaps.filter(({ from, to }) => heard.some(({ seq }) => seq >= from && seq <= to)),
    [],
    'a gap covers no events',
  );
  const byHandle = Map.groupBy(heard, ({ handle }) => handle);
  t.same(
    learnt.filter(({ id, outcome }) => !isOneLife(byHandle.get(id) ?? [], outcome)),
    [],
    'every handle was opened once, ended once as its outcome says, and was closed',
  );
  const asked = new Set(learnt.map(({ id }) => id));
  t.same(
    heard.filter(({ handle }) => !asked.has(handle)),
    [],
    'every handle was returned to its caller',
  );
}

function isOneLife(events: readonly Heard[], outcome: object): boolean {
  const names = events.map(({ event }) => event);
  const isOnce = (name: string): boolean => names.filter((each) => each === name).length === 1;
  const told = events.filter((one) => ['exited', 'reaped'].includes(one.event) && one.outcome);
  return (
    names[0] === 'opened' &&
    isOnce('opened') &&
    isOnce('exited') &&
    isOnce('closed') &&
    names.at(-1) === 'closed' &&
    told.length > 0 &&
    told.every((one) => JSON.stringify(one.outcome) === JSON.stringify(outcome))
  );
}

async function checkRest(t: Test, { daemon, directory, report }: Result): Promise<void> {
  const caller = new Caller(daemon.socket);
  const heard = new Set(report.heard.map(({ seq }) => seq));
  const missed: Heard[] = [];
  for await (const event of caller.events()) if (!heard.has(event.seq)) missed.push(event);
  t.same(missed, [], 'the subscriber received all events of the journal');
  t.same((await caller.get('/v1/handles')).body.handles, []);
  caller.close();
  await eventually(() => daemon.zombies.length === 0);
  await eventually(() => readdirSync(join(directory, 'state', 'output')).length === 0);
  t.equal(await daemon.stop(), 0);
  t.same(readdirSync(join(directory, 'state')).sort(), [
    'journal.log',
    'journal.sqlite',
    'lock',
    'node.json',
    'output',
    'token',
  ]);
}

t.test(`killed ${kills} times and replaced ${upgrades} times at random moments`, async (t) => {
  const result = await endure(t, { kills, upgrades });
  checkPrograms(t, result);
  checkDeadlines(t, result);
  checkEvents(t, result.report);
  await checkRest(t, result);
});

t.test('replaced only: no outcome is unknown, no child changes its parent, no client is refused', async (t) => {
  const result = await endure(t, { kills: 0, upgrades: Math.ceil(upgrades / 10) });
  checkPrograms(t, result);
  checkDeadlines(t, result);
  checkEvents(t, result.report);
  t.same(
    result.report.learnt.filter(
      ({ outcome, relation, collected }) =>
        outcome.reason === 'unknown' || relation !== 'child' || collected !== 'once',
    ),
    [],
  );
  t.same(result.report.gaps, []);
  t.notOk(Object.keys(result.report.askedAgain).some((why) => why === 'ECONNREFUSED' || why === 'ENOENT'));
  await checkRest(t, result);
});

t.test('a daemon that is killed during its first start can start again', async (t) => {
  for (const name of ['lock', 'token', 'node.json', 'journal.sqlite']) {
    const directory = temporaryDirectory(t);
    const state = join(directory, 'state');
    mkdirSync(state, { mode: 0o700 });
    const made = appears(state, name);
    const short = Daemon.begin(t, { directory });
    await made;
    await short.kill();
    const daemon = await Daemon.start(t, { directory });
    t.equal((await daemon.spawn(['true'])).relation, 'child', `killed after it created ${name}`);
    t.equal(await daemon.stop(), 0);
  }
});
