import type { SQLInputValue } from 'node:sqlite';
import type { Match } from '../../schemas/handles.ts';
import type { Labels } from '../model/process.ts';
import type { WatchFacts } from '../model/watch.ts';
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
  /** With what was opened, where something was: its seq, and how many the watch has opened with it. */
  | ({ write: 'sighted'; handle?: number; opened?: number } & Sighting)
  | { write: 'unsighted'; watch: string; pid: number }
  | { write: 'unwatched'; watch: string }
  /** A watch that could not be written down: as if it had never been asked for. */
  | { write: 'never watched'; watch: string };

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
    case 'never watched':
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
