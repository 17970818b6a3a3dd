import { strict as assert } from 'node:assert';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import t from 'tap';
import { type Change, type HandedJournal, Journal } from '../src/journal/journal.ts';
import { encode } from '../src/model/event.ts';
import { Handle, OpenDescription, Process } from '../src/model/process.ts';

const open = (directory: string, handed?: HandedJournal): Journal =>
  new Journal({ directory, bootId: 'boot', keepEvents: 1_000_000, marks: null, handed });

const TABLES = [
  'processes',
  'handles',
  'labels',
  'gone',
  'collected',
  'events',
  'keys',
  'key_use',
  'watches',
  'sighted',
];

/** All rows of all tables but for what a start writes of itself. */
function tablesIn(directory: string): Record<string, unknown[]> {
  const db = new DatabaseSync(join(directory, 'journal.sqlite'), { readOnly: true });
  const all = [...TABLES, 'opened_by'].map((table) => [table, db.prepare(`SELECT * FROM ${table}`).all()]);
  db.close();
  return Object.fromEntries(all);
}

/** What a daemon does, as far as the journal sees it: each step picks what it is done to by a number. */
type Step = [kind: Exclude<keyof Daemon, 'living'>, pick: number];

class Daemon {
  readonly #journal: Journal;
  readonly #handles: Handle[] = [];

  get living(): readonly Handle[] {
    return [...this.#handles, ...this.#intents];
  }

  readonly #intents: Handle[] = [];
  readonly #watches: { id: string; opened: number }[] = [];

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  #make(seq: number, n: number): Handle {
    const id = this.#journal.takeNumber();
    const facts = { id, pid: id, inode: String(id), startedAt: 0, argv: ['a'], relation: 'child' } as const;
    const description = new OpenDescription(id, new Process(facts), null, false, { streams: ['stdout'], ended: false });
    return new Handle({ id: `h_${id}`, client: `c${n % 2}`, description, labels: { n: `${n}` }, createdAt: 0, seq });
  }

  #event(handle: Handle, type: 'opened' | 'exited' | 'closed'): Change {
    return { write: 'event', event: encode(this.#journal.nextSeq(), type, handle, { shown: 0, at: 0 }, {}) };
  }

  #key({ id, client }: Pick<Handle, 'id' | 'client'>, n: number, answer: string | null): Change {
    return { write: 'key', key: { client, key: `k${n % 8}`, fingerprint: 'f', handle: id, answer } };
  }

  open(n: number): Change[] {
    const handle = this.#make(this.#journal.head, n);
    this.#handles.push(handle);
    handle.process.handles.add(handle);
    const key = this.#key(handle, n, n % 3 === 0 ? null : 'x'.repeat((n * 700) % 5000));
    return [
      { write: 'process', process: handle.process },
      { write: 'handle', handle },
      key,
      this.#event(handle, 'opened'),
    ];
  }

  intend(n: number): Change[] {
    const handle = this.#make(-this.#journal.takeNumber(), n);
    this.#intents.push(handle);
    return [{ write: 'process', process: handle.process }, { write: 'handle', handle }, this.#key(handle, n, null)];
  }

  place(n: number): Change[] {
    const [intent] = this.#intents.splice(n % (this.#intents.length || 1), 1);
    if (intent === undefined) return [];
    const handle = new Handle({ ...intent, seq: this.#journal.head });
    this.#handles.push(handle);
    handle.process.handles.add(handle);
    return [
      { write: 'placed', handle, before: intent.seq },
      { write: 'handle', handle },
      this.#event(handle, 'opened'),
    ];
  }

  give(n: number): Change[] {
    const [handle] = this.#intents.splice(n % (this.#intents.length || 1), 1);
    return handle === undefined ? [] : [{ write: 'never', handle }];
  }

  change(n: number): Change[] {
    const handle = this.#handles[n % this.#handles.length];
    if (handle === undefined) return [];
    handle.labels = { n: `${n}`, more: 'yes' };
    handle.description.nonblocking = n % 2 === 0;
    handle.description.output.ended = n % 3 === 0;
    const { description } = handle;
    return [
      { write: 'handle', handle },
      { write: 'description', description },
      { write: 'output', description },
    ];
  }

  end(n: number): Change[] {
    const handle = this.#handles[n % this.#handles.length];
    if (handle === undefined) return [];
    const { process } = handle;
    process.end({ outcome: { reason: 'exited', exitCode: n % 256 }, siginfo: null, rusage: null, reaped: n % 2 === 0 });
    return [{ write: 'process', process }, this.#event(handle, 'exited')];
  }

  collect(n: number): Change[] {
    const handle = this.#handles[n % this.#handles.length];
    return handle === undefined ? [] : [{ write: 'collected', process: handle.process, client: `c${n % 3}` }];
  }

  close(n: number): Change[] {
    const [handle] = this.#handles.splice(n % (this.#handles.length || 1), 1);
    if (handle === undefined) return [];
    const closed = this.#event(handle, 'closed');
    return [closed, { write: 'gone', handle, gone: n % 2 === 0 ? 'closed' : 'expired', last: this.#journal.head }];
  }

  watch(n: number): Change[] {
    const id = `w_${this.#journal.takeNumber()}`;
    this.#watches.push({ id, opened: 0 });
    const match = { exe: '/bin/true' };
    const facts = { id, client: 'c0', match, existing: true, nonblocking: false, labels: {}, createdAt: 0, opened: 0 };
    return [{ write: 'watch', watch: facts }, this.#key({ id, client: 'c0' }, n, 'made')];
  }

  sight(n: number): Change[] {
    const watch = this.#watches[n % this.#watches.length];
    const handle = this.#handles[n % this.#handles.length];
    if (watch === undefined) return [];
    const sighting = { write: 'sighted', watch: watch.id, pid: n % 5, key: 'k' } as const;
    if (handle === undefined) return [sighting];
    watch.opened += 1;
    return [{ ...sighting, handle: handle.seq, opened: watch.opened }];
  }

  lose(n: number): Change[] {
    const watch = this.#watches[n % this.#watches.length];
    return watch === undefined ? [] : [{ write: 'unsighted', watch: watch.id, pid: n % 5 }];
  }

  unwatch(n: number): Change[] {
    const [watch] = this.#watches.splice(n % (this.#watches.length || 1), 1);
    return watch === undefined ? [] : [{ write: n % 2 === 0 ? 'unwatched' : 'never watched', watch: watch.id }];
  }
}

const kinds = Object.getOwnPropertyNames(Daemon.prototype).filter(
  (name) => !['constructor', 'living'].includes(name),
) as Step[0][];
const steps = fc.array(fc.tuple(fc.constantFrom(...kinds), fc.nat(1000)), { minLength: 1, maxLength: 60 });

t.test(
  'a log that was brought to the tables already changes nothing, and one that was not changes the same',
  async (t) => {
    let runs = 0;
    const directory = t.testdir();
    fc.assert(
      fc.property(steps, (script) => {
        runs += 1;
        const [one, other] = [join(directory, `${runs}-one`), join(directory, `${runs}-other`)];
        mkdirSync(one, { recursive: true });
        const journal = open(one);
        const daemon = new Daemon(journal);
        journal.living = () => daemon.living;
        for (const [kind, pick] of script) {
          const changes = daemon[kind](pick);
          if (changes.length > 0) journal.commit(changes);
        }
        const { handed } = journal;
        const log = readFileSync(join(one, 'journal.log'));
        // As a daemon leaves it that dies now.
        cpSync(one, other, { recursive: true });
        const identity = JSON.parse(readFileSync(join(other, 'node.json'), 'utf8'));
        writeFileSync(join(other, 'node.json'), JSON.stringify({ ...identity, birth: undefined }).padEnd(256));
        journal.close();
        const tables = tablesIn(one);

        writeFileSync(join(one, 'journal.log'), log); // as one leaves it that dies between COMMIT and the truncation
        open(one).close();
        assert.deepEqual(tablesIn(one), tables, 'applied twice');

        open(other).close();
        assert.deepEqual(tablesIn(other), tables, 'applied by the next daemon');

        // To tables that lack what was applied, what lives is written first, and then what led to it.
        const third = join(directory, `${runs}-third`);
        mkdirSync(third);
        open(third, { ...handed, applied: 0.5 }).close();
        const { handles, labels, processes } = tablesIn(third);
        assert.deepEqual(
          { handles, labels, processes },
          { handles: tables.handles, labels: tables.labels, processes: tables.processes },
        );
      }),
      { numRuns: 60 },
    );
    t.ok(runs >= 60);
  },
);

t.test('what is kept of keys is counted in the tables', async (t) => {
  const directory = t.testdir();
  const journal = open(directory);
  const key = (client: string, name: string, answer: string | null): Change => ({
    write: 'key',
    key: { client, key: name, fingerprint: 'f', handle: 'h_1', answer },
  });
  journal.commit([key('a', '1', null), key('a', '2', 'x'.repeat(3000)), key('b', '1', 'short')]);
  t.strictSame({ ...journal.keyUnits('a') }, { own: 4, all: 5 });
  journal.commit([key('a', '1', 'x'.repeat(1024))]);
  t.strictSame({ ...journal.keyUnits('a') }, { own: 5, all: 6 });
  t.strictSame({ ...journal.keyUnits('nobody') }, { own: 0, all: 6 });
  while (journal.trim(0, 0, journal.now() + 1));
  t.strictSame({ ...journal.keyUnits('a') }, { own: 0, all: 0 });
  journal.close();
});
