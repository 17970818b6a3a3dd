import type { SQLInputValue } from 'node:sqlite';
import type { Labels } from '../handles/handle.ts';
import type { Match } from '../watches/matcher.ts';
import type { WatchFacts } from '../watches/watch.ts';
import type { Statement } from './statements.ts';

/** A process that a watch has nothing more to do with. */
export interface Sighting {
  watch: string;
  pid: number;
  /** Tells it from another of its pid. */
  key: string;
}

/** What is written of watches. */
export type WatchChange =
  | { write: 'watch'; watch: WatchFacts }
  | ({ write: 'sighted' /** What was opened, by its seq. */; handle?: number } & Sighting)
  | { write: 'unsighted'; watch: string; pid: number }
  | { write: 'unwatched'; watch: string };

/** A watch as it lies in the journal. */
export interface StoredWatch {
  facts: WatchFacts;
  sighted: Pick<Sighting, 'pid' | 'key'>[];
}

/** The statements of a change of watches. */
export function watchStatementsOf(change: WatchChange, boot: string): Statement[] {
  switch (change.write) {
    case 'watch': {
      const { id, client, match, existing, nonblocking, labels, createdAt, opened } = change.watch;
      const values = [id, client, JSON.stringify(match), Number(existing), Number(nonblocking), JSON.stringify(labels)];
      return [['INSERT INTO watches VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)', [...values, createdAt, opened]]];
    }
    case 'sighted': {
      const { watch, pid, key, handle } = change;
      const sighted: Statement = ['INSERT OR REPLACE INTO sighted VALUES (?, ?, ?, ?)', [watch, pid, key, boot]];
      if (handle === undefined) return [sighted];
      return [
        sighted,
        ['INSERT OR REPLACE INTO opened_by VALUES (?, ?)', [handle, watch]],
        ['UPDATE watches SET opened = opened + 1 WHERE id = ?', [watch]],
      ];
    }
    case 'unsighted':
      return [['DELETE FROM sighted WHERE watch = ? AND pid = ?', [change.watch, change.pid]]];
    case 'unwatched':
      return [
        ['DELETE FROM watches WHERE id = ?', [change.watch]],
        ['DELETE FROM sighted WHERE watch = ?', [change.watch]],
        ['DELETE FROM keys WHERE handle = ?', [change.watch]],
      ];
  }
}

interface WatchRow {
  id: string;
  client: string;
  match: string;
  existing: number;
  nonblocking: number;
  labels: string;
  created_at: number;
  opened: number;
}

type All = <T>(sql: string, values: SQLInputValue[]) => T[];

export function watchesOf(all: All, boot: string): StoredWatch[] {
  const sighted = Map.groupBy(
    all<Sighting>('SELECT watch, pid, key FROM sighted WHERE boot = ?', [boot]),
    ({ watch }) => watch,
  );
  return all<WatchRow>('SELECT * FROM watches ORDER BY number', []).map((row) => ({
    facts: {
      id: row.id,
      client: row.client,
      match: JSON.parse(row.match) as Match,
      existing: row.existing === 1,
      nonblocking: row.nonblocking === 1,
      labels: JSON.parse(row.labels) as Labels,
      createdAt: row.created_at,
      opened: row.opened,
    },
    sighted: sighted.get(row.id) ?? [],
  }));
}
