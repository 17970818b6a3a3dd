import type { SQLInputValue } from 'node:sqlite';
import type { SignalScope } from '../kernel/pidfd.ts';
import type { TerminationChange, TerminationFacts } from './change.ts';
import type { Statement } from './statement.ts';

export const TERMINATIONS_MIGRATION = `
  CREATE TABLE terminations (
    pid INTEGER PRIMARY KEY, boot TEXT NOT NULL, inode TEXT, start_ticks INTEGER, process INTEGER NOT NULL, scope TEXT NOT NULL,
    kill_at REAL NOT NULL) STRICT;
  `;

/** Returns the statements of a change of a termination. */
export function terminationStatementsOf(change: TerminationChange, boot: string): Statement[] {
  if (change.write === 'terminated') return [['DELETE FROM terminations WHERE pid = ?', [change.pid]]];
  const { pid, inode, startTicks, process, scope, killAt } = change.termination;
  const values = [pid, boot, inode, startTicks, process, scope, killAt];
  return [['INSERT OR REPLACE INTO terminations VALUES (?, ?, ?, ?, ?, ?, ?)', values]];
}

interface TerminationRow {
  pid: number;
  inode: string | null;
  start_ticks: number | null;
  process: number;
  scope: SignalScope;
  kill_at: number;
}

/** Returns the pending terminations of this boot. A pid of another boot means nothing. */
export function terminationsOf(
  all: <T>(sql: string, values: SQLInputValue[]) => T[],
  boot: string,
): TerminationFacts[] {
  return all<TerminationRow>('SELECT * FROM terminations WHERE boot = ?', [boot]).map(
    ({ start_ticks: startTicks, kill_at: killAt, pid, inode, process, scope }) => ({
      pid,
      inode,
      startTicks,
      process,
      scope,
      killAt,
    }),
  );
}
