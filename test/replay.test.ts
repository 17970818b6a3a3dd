import { strict as assert } from 'node:assert';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import t from 'tap';
import { type Change, changesOfHandle, type TerminationFacts } from '../src/journal/change.ts';
import { Journal } from '../src/journal/journal.ts';
import { Log } from '../src/journal/log.ts';
import type { HandedJournal } from '../src/journal/replay.ts';
import { encode } from '../src/model/event.ts';
import { Handle, OpenDescription, Process } from '../src/model/process.ts';

const open = (directory: string, handed?: HandedJournal): Journal =>
  new Journal({ directory, bootId: 'boot', keepEvents: 1_000_000, marks: null, handed });

type Kind = Change['write'];

/** Makes changes that a daemon could make: each refers to existing handles, processes and watches. */
class Model {
  readonly #journal: Journal;
  readonly #handles: Handle[] = [];
  /** Handles that were written before their process was started. */
  readonly #intents: Handle[] = [];
  readonly #watches: { id: string; opened: number }[] = [];
  readonly #terminations = new Map<number, TerminationFacts>();

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** The handles that a new journal writes first. */
  get living(): readonly Handle[] {
    return [...this.#handles, ...this.#intents];
  }

  /** A change of each kind, with the changes that must precede it. `n` selects its content and its target. */
  readonly changes: Record<Kind, (n: number) => Change[]> = {
    handle: (n) => (n % 3 === 0 ? this.#intend(n) : this.#open(n)),
    process: (n) => {
      const { before, handle } = this.#pick(n);
      const { process } = handle;
      process.relation = n % 5 === 0 ? 'foreign' : 'child';
      process.end({
        outcome: { reason: 'exited', exitCode: n % 256 },
        siginfo: null,
        rusage: null,
        reaped: n % 2 === 0,
      });
      process.remains = n % 3 === 0 ? null : { cgroup: n % 2 === 0, strays: [{ pid: n, startTicks: null }] };
      return [...before, { write: 'process', process }, this.#event(handle, 'exited')];
    },
    description: (n) => {
      const { before, handle } = this.#pick(n);
      handle.description.nonblocking = n % 2 === 0;
      return [...before, { write: 'description', description: handle.description }];
    },
    output: (n) => {
      const { before, handle } = this.#pick(n);
      handle.description.output.ended = n % 3 === 0;
      return [...before, { write: 'output', description: handle.description }];
    },
    tombstone: (n) => {
      const { before, handle } = this.#pick(n);
      this.#handles.splice(this.#handles.indexOf(handle), 1);
      handle.process.handles.delete(handle);
      const closed = this.#event(handle, 'closed');
      const endedBy = n % 2 === 0 ? 'closed' : 'expired';
      return [...before, closed, { write: 'tombstone', handle, endedBy, last: this.#journal.head }];
    },
    'unheld end': (n) => {
      const { before, handle } = this.#pick(n);
      const { process } = handle;
      process.lifetime = { startedAt: n, startTicks: null, timeout: { afterMs: n, graceMs: n }, lease: null };
      if (n % 2 === 0) process.overdue = { timedOut: true };
      const bounded = [...before, { write: 'process', process } as const, ...this.changes.tombstone(n)];
      return process.handles.size === 0 ? [...bounded, { write: 'unheld end', process }] : bounded;
    },
    withdrawn: (n) => {
      const { before, intent } = this.#takeIntent(n);
      return [...before, { write: 'withdrawn', handle: intent }];
    },
    placed: (n) => {
      const { before, intent } = this.#takeIntent(n);
      const handle = new Handle({ ...intent, seq: this.#journal.head });
      this.#handles.push(handle);
      handle.process.handles.add(handle);
      return [
        ...before,
        { write: 'placed', handle, before: intent.seq },
        { write: 'handle', handle },
        this.#event(handle),
      ];
    },
    settled: (n) => {
      const { before, handle } = this.#pick(n);
      handle.process.remains = null;
      return [...before, { write: 'settled', process: handle.process }];
    },
    collected: (n) => {
      const { before, handle } = this.#pick(n);
      return [...before, { write: 'collected', process: handle.process, client: `c${n % 3}` }];
    },
    key: (n) => {
      const { before, handle } = this.#pick(n);
      return [...before, this.#key(handle, n, n % 4 === 0 ? null : 'y'.repeat((n * 300) % 3000))];
    },
    event: (n) => {
      const { before, handle } = this.#pick(n);
      return [...before, this.#event(handle, n % 2 === 0 ? 'stopped' : 'continued')];
    },
    watch: (n) => {
      const id = `w_${this.#journal.takeNumber()}`;
      this.#watches.push({ id, opened: 0 });
      return [this.#watch({ id, opened: 0 }), this.#key({ id, client: 'c0' }, n, 'made')];
    },
    sighted: (n) => {
      const { before, watch } = this.#pickWatch(n);
      const sighting = { write: 'sighted', watch: watch.id, pid: n % 5, key: `k${n % 2}` } as const;
      const handle = this.#handles[n % this.#handles.length];
      if (handle === undefined || n % 3 === 0) return [...before, sighting];
      watch.opened += 1;
      return [...before, { ...sighting, handle: handle.seq, opened: watch.opened }];
    },
    unsighted: (n) => {
      const { before, watch } = this.#pickWatch(n);
      return [...before, { write: 'unsighted', watch: watch.id, pid: n % 5 }];
    },
    unwatched: (n) => {
      const { before, watch } = this.#takeWatch(n);
      return [...before, { write: 'unwatched', watch: watch.id }];
    },
    'watch withdrawn': (n) => {
      const { before, watch } = this.#takeWatch(n);
      return [...before, { write: 'watch withdrawn', watch: watch.id }];
    },
    termination: (n) => {
      const { before, handle } = this.#pick(n);
      const { id: process, pid, inode } = handle.process;
      const scope = n % 2 === 0 ? 'group' : 'process';
      const termination = { pid, inode, startTicks: n % 3 === 0 ? null : n, process, scope, killAt: n + 0.5 } as const;
      this.#terminations.set(pid, termination);
      return [...before, { write: 'termination', termination }];
    },
    terminated: (n) => {
      const before = this.#terminations.size === 0 ? this.changes.termination(n) : [];
      const pid = [...this.#terminations.keys()][n % this.#terminations.size]!;
      this.#terminations.delete(pid);
      return [...before, { write: 'terminated', pid }];
    },
  };

  #make(seq: number, n: number): Handle {
    const id = this.#journal.takeNumber();
    const facts = { id, pid: id, inode: String(id), startedAt: 0, argv: ['a'], relation: 'child' } as const;
    const description = new OpenDescription(id, new Process(facts), null, false, { streams: ['stdout'], ended: false });
    return new Handle({
      id: `h_${id}`,
      client: `c${n % 2}`,
      description,
      name: n % 3 === 0 ? `n${n}` : null,
      labels: { n: `${n}` },
      createdAt: 0,
      seq,
    });
  }

  #event(handle: Handle, type: 'opened' | 'exited' | 'closed' | 'stopped' | 'continued' = 'opened'): Change {
    return { write: 'event', event: encode(this.#journal.nextSeq(), type, handle, { shown: 0, at: 0 }, {}) };
  }

  #key({ id, client }: Pick<Handle, 'id' | 'client'>, n: number, answer: string | null): Change {
    return { write: 'key', key: { client, key: `k${n % 8}`, fingerprint: `f${n}`, handle: id, answer } };
  }

  #watch({ id, opened }: { id: string; opened: number }): Change {
    const match = { exe: '/bin/true' };
    const facts = { id, client: 'c0', match, existing: true, nonblocking: false, labels: { a: 'b' }, createdAt: 0 };
    return { write: 'watch', watch: { ...facts, opened } };
  }

  /** The changes of an open. */
  #open(n: number): Change[] {
    const handle = this.#make(this.#journal.head, n);
    this.#handles.push(handle);
    handle.process.handles.add(handle);
    const key = this.#key(handle, n, n % 2 === 0 ? null : 'x'.repeat((n * 700) % 5000));
    return [{ write: 'process', process: handle.process }, { write: 'handle', handle }, key, this.#event(handle)];
  }

  /** The changes before a process is started. */
  #intend(n: number): Change[] {
    const handle = this.#make(-this.#journal.takeNumber(), n);
    this.#intents.push(handle);
    return [{ write: 'process', process: handle.process }, { write: 'handle', handle }, this.#key(handle, n, null)];
  }

  /** An open handle, with the changes that precede. Every fourth time its labels change as well. */
  #pick(n: number): { before: Change[]; handle: Handle } {
    const before = this.#handles.length === 0 ? this.#open(n) : [];
    const handle = this.#handles[n % this.#handles.length]!;
    if (n % 4 !== 0) return { before, handle };
    handle.labels = { n: `${n}`, more: 'yes' };
    return { before: [...before, { write: 'handle', handle }], handle };
  }

  #takeIntent(n: number): { before: Change[]; intent: Handle } {
    const before = this.#intents.length === 0 ? this.#intend(n) : [];
    const [intent] = this.#intents.splice(n % this.#intents.length, 1);
    return { before, intent: intent! };
  }

  /** A watch, with the changes that precede. Every second time it is written again. */
  #pickWatch(n: number): { before: Change[]; watch: { id: string; opened: number } } {
    const before = this.#watches.length === 0 ? this.changes.watch(n) : [];
    const watch = this.#watches[n % this.#watches.length]!;
    return { before: n % 2 === 0 ? [...before, this.#watch(watch)] : before, watch };
  }

  #takeWatch(n: number): { before: Change[]; watch: { id: string; opened: number } } {
    const { before, watch } = this.#pickWatch(n);
    this.#watches.splice(this.#watches.indexOf(watch), 1);
    return { before, watch };
  }
}

type Tables = Record<string, unknown[]>;

/** Keys of the meta table that every start changes: the clock, and the time of the last write. */
const OF_THE_START = ['boot', 'base', 'last', 'marked'];

/** Reads all rows of all tables. */
function tablesIn(directory: string): Tables {
  using db = new DatabaseSync(join(directory, 'journal.sqlite'), { readOnly: true });
  const names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all();
  const tables = Object.fromEntries(
    names.map(({ name }) => [name as string, db.prepare(`SELECT * FROM ${name}`).all()]),
  );
  return { ...tables, meta: tables.meta!.filter(({ key }) => !OF_THE_START.includes(String(key))) };
}

/** Reads the tables after a daemon has started on a state directory and has stopped again. */
function tablesAfterStart(directory: string): Tables {
  open(directory).close();
  return tablesIn(directory);
}

/** Copies a state directory as a daemon leaves it that is killed now. */
function copy(from: string, to: string): void {
  cpSync(from, to, { recursive: true });
  // Without its birth time the copy is not treated as a restored backup.
  const identity = JSON.parse(readFileSync(join(to, 'node.json'), 'utf8'));
  writeFileSync(join(to, 'node.json'), JSON.stringify({ ...identity, birth: undefined }).padEnd(256));
}

/** Does some work with a function in place of the log's truncation after each COMMIT. */
function withTruncation<T>(truncate: (this: Log) => void, work: () => T): T {
  const { clear } = Log.prototype;
  Log.prototype.clear = truncate;
  try {
    return work();
  } finally {
    Log.prototype.clear = clear;
  }
}

const kinds = Object.keys(new Model({} as Journal).changes) as Kind[];
/** Commits of some changes each; `true` applies them to the tables at once. */
const scripts = fc.array(
  fc.tuple(fc.array(fc.tuple(fc.constantFrom(...kinds), fc.nat(1000)), { minLength: 1, maxLength: 3 }), fc.boolean()),
  { minLength: 1, maxLength: 40 },
);

t.test('applying a log twice leaves the same tables as applying it once', async (t) => {
  const root = t.testdir();
  const written = Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Kind, number>;
  let runs = 0;
  const check = fc.property(scripts, fc.boolean(), (script, isTruncated) => {
    runs += 1;
    const directoryOf = (name: string): string => join(root, String(runs), name);
    const live = directoryOf('live');
    mkdirSync(live, { recursive: true });
    const journal = open(live);
    const model = new Model(journal);
    journal.addSource(() => model.living.flatMap(changesOfHandle));
    const { clear } = Log.prototype;
    // A log that cannot be truncated keeps the lines that were applied, and later commits append theirs.
    withTruncation(isTruncated ? clear : () => {}, () => {
      for (const [steps, isApplied] of script) {
        const changes = steps.flatMap(([kind, n]) => model.changes[kind](n));
        for (const { write } of changes) written[write] += 1;
        assert.equal(journal.commit(changes), true);
        if (isApplied) assert.equal(journal.apply(), true);
      }
    });
    const { handed } = journal;
    copy(live, directoryOf('killed'));
    const log = readFileSync(join(live, 'journal.log'));
    copy(live, directoryOf('stopped'));
    journal.close();
    const { holes: _, ...clean } = tablesIn(live);

    const once = tablesAfterStart(directoryOf('killed'));
    assert.deepEqual({ ...once, holes: undefined }, { ...clean, holes: undefined }, 'as the daemon itself would');

    writeFileSync(join(directoryOf('killed'), 'journal.log'), log);
    assert.deepEqual(tablesAfterStart(directoryOf('killed')), once, 'the same log, once more');

    // The next daemon is killed between its COMMIT and the truncation.
    let stops = 0;
    const stop = function (this: Log): void {
      stops += 1;
      if (stops === 1) copy(directoryOf('stopped'), directoryOf('stopped twice'));
      clear.call(this);
    };
    withTruncation(stop, () => open(directoryOf('stopped')).close());
    assert.ok(stops > 0);
    assert.deepEqual(
      readFileSync(join(directoryOf('stopped twice'), 'journal.log')),
      log,
      'the tables and the log both have it',
    );
    assert.deepEqual(tablesAfterStart(directoryOf('stopped twice')), once, 'a stop between COMMIT and truncation');

    // For tables that lack applied changes, live objects are written first, and then the lines of the handover.
    const anew = directoryOf('anew');
    mkdirSync(anew);
    open(anew, { ...handed, applied: 0.5 }).close();
    const { handles, labels, processes } = tablesIn(anew);
    const { handles: h, labels: l, processes: p } = clean;
    assert.deepEqual({ handles, labels, processes }, { handles: h, labels: l, processes: p });
  });
  fc.assert(check, { numRuns: 60 });
  t.same(
    kinds.filter((kind) => written[kind] === 0),
    [],
    'changes of every kind were written',
  );
});
