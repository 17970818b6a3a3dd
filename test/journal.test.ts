import t from 'tap';
import type { Change } from '../src/journal/change.ts';
import { Journal } from '../src/journal/journal.ts';

t.test('what is kept of keys is counted in the tables', async (t) => {
  const directory = t.testdir();
  const journal = new Journal({ directory, bootId: 'boot', keepEvents: 1_000_000, marks: null });
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
