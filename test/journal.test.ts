import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import type { Change } from '../src/journal/change.ts';
import { Database } from '../src/journal/database.ts';
import { Journal } from '../src/journal/journal.ts';

const open = (directory: string): Journal =>
  new Journal({ directory, bootId: 'boot', keepEvents: 1_000_000, marks: null });

t.test('the tables count the units of idempotency keys', async (t) => {
  const directory = t.testdir();
  const journal = open(directory);
  const key = (client: string, name: string, answer: string | null): Change => ({
    write: 'key',
    key: { client, key: name, fingerprint: 'f', handle: 'h_1', answer },
  });
  journal.commit([key('a', '1', null), key('a', '2', 'x'.repeat(3000)), key('b', '1', 'short')]);
  t.strictSame({ ...journal.queries.keyUnits('a') }, { own: 4, all: 5 });
  journal.commit([key('a', '1', 'x'.repeat(1024))]);
  t.strictSame({ ...journal.queries.keyUnits('a') }, { own: 5, all: 6 });
  t.strictSame({ ...journal.queries.keyUnits('nobody') }, { own: 0, all: 6 });
  while (journal.trim(0, 0, journal.now() + 1));
  t.strictSame({ ...journal.queries.keyUnits('a') }, { own: 0, all: 0 });
  journal.close();
});

/** Commits events and applies them to the tables. */
function writeEvents(journal: Journal, count: number): void {
  const at = journal.now();
  for (let n = 0; n < count; n += 1) {
    const event = {
      seq: journal.nextSeq(),
      type: 'opened',
      handle: 'h_1',
      client: 'a',
      labels: {},
      at,
      frame: '{}',
    } as const;
    journal.commit([{ write: 'event', event }]);
  }
}

const sqliteError = (errcode: number): Error => Object.assign(new Error(`SQLite error ${errcode}`), { errcode });
const [CORRUPT, FULL] = [11, 13];

/** The page size of a new database, in bytes. */
const PAGE_SIZE = 4096;

t.test('damage that the replay finds is reported, and the lines of the log are kept', async (t) => {
  const directory = t.testdir();
  const journal = open(directory);
  writeEvents(journal, 2000);
  t.ok(journal.apply());
  journal.close();
  const path = join(directory, 'journal.sqlite');
  const tables = readFileSync(path);
  const next = open(directory);
  writeEvents(next, 1);
  const log = readFileSync(join(directory, 'journal.log'));
  next.close();
  // As if the daemon had died.
  writeFileSync(path, tables);
  writeFileSync(join(directory, 'journal.log'), log);
  // The header and the schema stay intact, so that only a statement on the events finds the damage.
  const db = new DatabaseSync(path, { readOnly: true });
  const { page } = db.prepare("SELECT rootpage page FROM sqlite_schema WHERE name = 'events'").get()!;
  db.close();
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(PAGE_SIZE, 0xff), 0, PAGE_SIZE, (Number(page) - 1) * PAGE_SIZE);
  closeSync(file);
  const heir = open(directory);
  t.match(heir.lastNotice, { what: 'damaged', setAside: /journal\.sqlite\.damaged/ });
  t.same(
    heir.queries.events({ client: null, since: 0, limit: 10 }).events.map(({ seq }) => seq),
    [2001],
  );
  t.same(heir.gapAfter(0), { from: 1, to: 2000 });
  heir.close();
});

t.test('a full disk right after damage does not hide the gap', async (t) => {
  const journal = open(t.testdir());
  writeEvents(journal, 3);
  t.ok(journal.apply());
  writeEvents(journal, 1);
  const { transaction } = Database.prototype;
  const errors = [sqliteError(CORRUPT), null, sqliteError(FULL)];
  t.intercept(Database.prototype, 'transaction', {
    configurable: true,
    writable: true,
    value(this: Database, work: () => void) {
      const error = errors.shift();
      transaction.call(this, () => {
        work();
        if (error != null) throw error;
      });
    },
  });
  t.notOk(journal.apply());
  t.match(journal.fault, { errcode: FULL });
  t.ok(journal.apply());
  t.equal(errors.length, 0);
  t.same(journal.gapAfter(0), { from: 1, to: 3 });
  t.equal(journal.oldest, 4);
  journal.close();
});

t.test('a trim that the disk refuses removes nothing', async (t) => {
  const journal = open(t.testdir());
  writeEvents(journal, 3);
  t.ok(journal.apply());
  const { transaction } = Database.prototype;
  const restore = t.intercept(Database.prototype, 'transaction', {
    configurable: true,
    writable: true,
    value(this: Database, work: () => void) {
      transaction.call(this, () => {
        work();
        throw sqliteError(FULL);
      });
    },
  });
  t.notOk(journal.trim(journal.now() + 1, 0, 0));
  t.equal(journal.oldest, 1);
  restore.restore();
  t.equal(journal.gapAfter(0), null);
  journal.trim(journal.now() + 1, 0, 0);
  t.same(journal.gapAfter(0), { from: 1, to: 3 });
  journal.close();
});
