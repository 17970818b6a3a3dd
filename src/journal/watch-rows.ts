import type { SQLInputValue } from 'node:sqlite';
import type { Match } from '../../schemas/match.ts';
import type { Labels } from '../model/process.ts';
import type { WatchFacts } from '../model/watch.ts';
import type { Sighting, WatchChange } from './change.ts';
import type { Statement } from './statement.ts';

/** A watch as it was written. */
export interface StoredWatch {
  facts: WatchFacts;
  sighted: Pick<Sighting, 'pid' | 'key'>[];
}

/** Returns the statements of a change of a watch. */
export function watchStatementsOf(change: WatchChange, boot: string): Statement[] {
  switch (change.write) {
    case 'watch': {
      const { id, client, match, existing, nonblocking, labels, createdAt, opened } = change.watch;
      const values = [id, client, JSON.stringify(match), Number(existing), Number(nonblocking), JSON.stringify(labels)];
      return [
        [
          `INSERT INTO watches VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET opened = excluded.opened`,
          [...values, createdAt, opened],
        ],
      ];
    }
    case 'sighted': {
      const { watch, pid, key, handle, opened } = change;
      const sighted: Statement = ['INSERT OR REPLACE INTO sighted VALUES (?, ?, ?, ?)', [watch, pid, key, boot]];
      if (handle === undefined || opened === undefined) return [sighted];
      return [
        sighted,
        ['INSERT OR REPLACE INTO opened_by VALUES (?, ?)', [handle, watch]],
        ['UPDATE watches SET opened = ? WHERE id = ?', [opened, watch]],
      ];
    }
    case 'unsighted':
      return [['DELETE FROM sighted WHERE watch = ? AND pid = ?', [change.watch, change.pid]]];
    case 'unwatched':
      return removal(change.watch);
    case 'watch withdrawn':
      return [...removal(change.watch), ['DELETE FROM keys WHERE handle = ?', [change.watch]]];
  }
}

function removal(watch: string): Statement[] {
  return [
    ['DELETE FROM watches WHERE id = ?', [watch]],
    ['DELETE FROM sighted WHERE watch = ?', [watch]],
  ];
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

/** Returns all watches, with their sightings of this boot. */
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
