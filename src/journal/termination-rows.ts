import type { SQLInputValue } from 'node:sqlite';
import type { SignalScope } from '../kernel/pidfd.ts';
import type { Statement } from './statements.ts';

/** A process that is to be killed at a time. It tells by itself which process is meant: it outlives the handles on it. */
export interface TerminationFacts {
  pid: number;
  /** Of pidfs; `null` before Linux 6.9. */
  inode: string | null;
  /** When it started, in clock ticks since boot; `null` where it had ended. */
  startTicks: number | null;
  /** The journal's number for it. */
  process: number;
  scope: SignalScope;
  /** Milliseconds on CLOCK_BOOTTIME. */
  killAt: number;
}

/** What is written of terminations. */
export type TerminationChange =
  | { write: 'termination'; termination: Readonly<TerminationFacts> }
  | { write: 'terminated'; pid: number };

export const TERMINATIONS_MIGRATION = `
  CREATE TABLE terminations (
    pid INTEGER PRIMARY KEY, boot TEXT NOT NULL, inode TEXT, start_ticks INTEGER, process INTEGER NOT NULL, scope TEXT NOT NULL,
    kill_at REAL NOT NULL) STRICT;
  `;

/** The statements of a change of terminations. */
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

/** The pending terminations of this boot: a pid means nothing beyond it. */
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
