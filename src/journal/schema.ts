/** Raised whenever the tables change; a journal of another version is not read. */
export const VERSION = 1;

/**
 * What must outlive the daemon. Environment values and stdin are never written down.
 *
 * `handles.seq` is the cursor from before the `opened` event, so it grows with every handle and orders them; `events.frame`
 * is the text that was sent. A `gap` is a range of seqs that is not there any more.
 */
export const SCHEMA = `
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
`;
