import { TERMINATIONS_MIGRATION } from './termination-rows.ts';

/**
 * The tables, as migrations from one version to the next. A new journal runs all of them, an older one those that it lacks. A released
 * migration is never changed.
 *
 * `handles.seq` is the event cursor from before the `opened` event, so it grows with every handle and orders them. `events.frame` is the
 * text that was sent. Environment variables and stdin are never stored.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE processes (
    id INTEGER PRIMARY KEY, boot TEXT NOT NULL, pid INTEGER NOT NULL, inode TEXT, started_at INTEGER NOT NULL,
    argv TEXT NOT NULL, relation TEXT NOT NULL, state TEXT NOT NULL, ending TEXT) STRICT;
  CREATE INDEX processes_alive ON processes (id) WHERE ending IS NULL;
  CREATE TABLE descriptions (id INTEGER PRIMARY KEY, process INTEGER NOT NULL, nonblocking INTEGER NOT NULL) STRICT;
  CREATE TABLE handles (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, description INTEGER NOT NULL,
    labels TEXT NOT NULL, created_at INTEGER NOT NULL, gone TEXT) STRICT;
  CREATE INDEX handles_by_client ON handles (client, seq) WHERE gone IS NULL;
  CREATE TABLE labels (
    client TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, handle INTEGER NOT NULL,
    PRIMARY KEY (client, key, value, handle)) STRICT, WITHOUT ROWID;
  CREATE INDEX labels_by_handle ON labels (handle);
  CREATE TABLE collected (
    process INTEGER NOT NULL, client TEXT NOT NULL, PRIMARY KEY (process, client)) STRICT, WITHOUT ROWID;
  CREATE TABLE events (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, handle TEXT NOT NULL, type TEXT NOT NULL, at INTEGER NOT NULL,
    frame TEXT NOT NULL) STRICT;
  CREATE INDEX events_by_client ON events (client, seq);
  CREATE INDEX events_by_handle ON events (handle, seq);
  `,
  // Retention. A closed or expired handle leaves a tombstone in `gone` for as long as its last event is stored. The records that no
  // other handle needs are removed with it. A description is two columns of its handles. `output` is a set of bits: see rows.ts. A hole
  // is a range of seqs that a daemon may have used and did not write before it died.
  `
  ALTER TABLE processes ADD COLUMN ended_at INTEGER;
  UPDATE processes SET ended_at = unixepoch() * 1000 WHERE ending ->> 'reaped';
  CREATE INDEX processes_ended ON processes (ended_at) WHERE ended_at IS NOT NULL;
  DROP INDEX processes_alive;
  CREATE INDEX processes_unsettled ON processes (id) WHERE ended_at IS NULL;

  CREATE TABLE gone (
    id TEXT PRIMARY KEY, client TEXT NOT NULL, seq INTEGER NOT NULL, how TEXT NOT NULL, last INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
  INSERT INTO gone SELECT id, client, seq, gone, (SELECT coalesce(max(seq), 0) FROM events e WHERE e.handle = h.id)
    FROM handles h WHERE gone IS NOT NULL;
  CREATE INDEX gone_last ON gone (last);

  CREATE TABLE open_handles (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, process INTEGER NOT NULL,
    description INTEGER NOT NULL, nonblocking INTEGER NOT NULL, output INTEGER NOT NULL, labels TEXT NOT NULL,
    created_at INTEGER NOT NULL) STRICT;
  INSERT INTO open_handles
    SELECT h.seq, h.id, h.client, d.process, d.id, d.nonblocking, 0, h.labels, h.created_at
    FROM handles h JOIN descriptions d ON d.id = h.description WHERE h.gone IS NULL;
  DROP TABLE handles;
  DROP TABLE descriptions;
  ALTER TABLE open_handles RENAME TO handles;
  CREATE INDEX handles_by_client ON handles (client, seq);
  CREATE INDEX handles_by_process ON handles (process);
  CREATE INDEX handles_with_output ON handles (description, output) WHERE output > 0;
  DELETE FROM processes WHERE id NOT IN (SELECT process FROM handles);

  CREATE TABLE taken (
    process INTEGER NOT NULL, client TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (process, client))
    STRICT, WITHOUT ROWID;
  INSERT INTO taken SELECT process, client, unixepoch() * 1000 FROM collected;
  DROP TABLE collected;
  ALTER TABLE taken RENAME TO collected;
  CREATE INDEX collected_at ON collected (at);

  CREATE TABLE keys (
    client TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, handle TEXT NOT NULL, answer TEXT,
    PRIMARY KEY (client, key)) STRICT, WITHOUT ROWID;
  CREATE INDEX keys_by_handle ON keys (handle);
  CREATE TABLE holes (first INTEGER PRIMARY KEY, last INTEGER NOT NULL) STRICT;
  DROP TABLE meta;
  `,
  // Watches. `sighted` holds the processes that a watch does not act on any more: it has opened them, or they were there before it. A
  // pid means nothing in another boot.
  `
  CREATE TABLE watches (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, match TEXT NOT NULL, existing INTEGER NOT NULL,
    nonblocking INTEGER NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL, opened INTEGER NOT NULL) STRICT;
  CREATE TABLE sighted (
    watch TEXT NOT NULL, pid INTEGER NOT NULL, key TEXT NOT NULL, boot TEXT NOT NULL, PRIMARY KEY (watch, pid))
    STRICT, WITHOUT ROWID;
  CREATE TABLE opened_by (handle INTEGER PRIMARY KEY, watch TEXT NOT NULL) STRICT;
  `,
  // No change of the tables. From here on a log lies beside them, which an older daemon would not read.
  '',
  // `meta` holds the number of the last log line that the tables have, and the journal's clock: see journal-clock.ts. All times are on
  // that clock, except for those in frames, `started_at` and `created_at`. An idempotency key outlives its handle, so keys are bounded
  // in units: one for each key, and one for each whole KiB of its answer.
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
  ALTER TABLE keys ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
  UPDATE keys SET at = unixepoch() * 1000;
  CREATE INDEX keys_at ON keys (at);
  CREATE TABLE key_use (client TEXT PRIMARY KEY, units INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO key_use SELECT client, sum(1 + coalesce(length(answer), 0) / 1024) FROM keys GROUP BY client;
  CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
    INSERT INTO key_use VALUES (new.client, 1 + coalesce(length(new.answer), 0) / 1024)
      ON CONFLICT (client) DO UPDATE SET units = units + excluded.units;
  END;
  CREATE TRIGGER key_answered AFTER UPDATE OF answer ON keys BEGIN
    UPDATE key_use SET units = units + coalesce(length(new.answer), 0) / 1024 - coalesce(length(old.answer), 0) / 1024
      WHERE client = new.client;
  END;
  CREATE TRIGGER key_removed AFTER DELETE ON keys BEGIN
    UPDATE key_use SET units = units - 1 - coalesce(length(old.answer), 0) / 1024 WHERE client = old.client;
    DELETE FROM key_use WHERE client = old.client AND units <= 0;
  END;
  `,
  TERMINATIONS_MIGRATION,
  // Retention of a foreign process counts from its end, because its parent may never reap it.
  `
  UPDATE processes SET ended_at = unixepoch() * 1000 WHERE ending IS NOT NULL AND ended_at IS NULL;
  CREATE INDEX processes_unreaped ON processes (id) WHERE ending ->> 'reaped' = 0;
  `,
  // Names. The index is not unique: a change is written with the newest state, which may meet an older one of another handle.
  `
  ALTER TABLE handles ADD COLUMN name TEXT;
  CREATE INDEX handles_by_name ON handles (client, name) WHERE name IS NOT NULL;
  `,
  // Lifetimes. The row of a process that has one outlives its last handle, until the process has ended.
  `
  ALTER TABLE processes ADD COLUMN lifetime TEXT;
  ALTER TABLE processes ADD COLUMN overdue TEXT;
  CREATE INDEX processes_limited ON processes (id) WHERE lifetime IS NOT NULL AND ending IS NULL;
  `,
  // What may be left of an ended child, as JSON; null once nothing is. A child that ended before this migration counts as settled.
  `
  ALTER TABLE processes ADD COLUMN remains TEXT;
  CREATE INDEX processes_remaining ON processes (id) WHERE remains IS NOT NULL;
  `,
  // What stdin is: 'pipe' or 'tty'; null where no request can write to it.
  `
  ALTER TABLE handles ADD COLUMN input TEXT;
  CREATE INDEX handles_with_input ON handles (description) WHERE input IS NOT NULL;
  `,
];

/** The current version. A journal of a later version cannot be read. */
export const VERSION = MIGRATIONS.length;
