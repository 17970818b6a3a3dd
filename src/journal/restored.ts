import { type CursorStart, newestSeq } from './cursor.ts';
import { type Identity, RESERVE } from './identity.ts';
import type { StoredClock } from './journal-clock.ts';
import type { Mark } from './mark.ts';
import type { Tables } from './tables.ts';

/** What a start found, from which it can tell whether the state directory was restored from a backup. */
export interface Found {
  identity: Identity;
  tables: Tables;
  mark: Mark | null;
  /** The number of the last line of the log. */
  line: number;
  /** Whether there was no file with tables. */
  isNew: boolean;
  /** Whether the lines of the log follow what the tables had. */
  isContinued: boolean;
  /** `null` where the tables are new, or of a version without node.json. */
  clock: StoredClock | null;
}

/** @returns how the files show that they are older than what was last written to them; `null` where they do not */
function whyRestored({ identity, tables, mark, line, isNew, isContinued, clock }: Found): string | null {
  const { isCopy, isNew: isIdentityNew, reserved, stoppedAt } = identity;
  const found = mark?.found ?? null;
  if (isCopy) return 'node.json is a copy of the one that was written here.';
  if (isIdentityNew && clock !== null) return 'node.json was missing.';
  if (isNew && !isIdentityNew && reserved > 0) return 'journal.sqlite was missing.';
  if (!isContinued) return 'journal.log does not follow journal.sqlite.';
  if (stoppedAt !== null && stoppedAt > line) return 'journal.sqlite is older than node.json.';
  if (found !== null && (found.line > line || found.head > Math.max(reserved, newestSeq(tables))))
    return 'It is older than what was written on this boot of the machine.';
  return null;
}

/**
 * Whether the files may be an older snapshot that nothing shows: after another boot, or where the runtime directory was emptied, no mark
 * outside of the state directory says how far they had come.
 */
function mayBeOlder({ clock, mark, tables }: Pick<Found, 'clock' | 'mark' | 'tables'>, bootId: string): boolean {
  if (clock === null) return false;
  return clock.boot !== bootId || (mark?.found === null && Number(tables.meta('marked') ?? 0) === 1);
}

/**
 * Finds where seqs and lines continue. A daemon that sent events from memory died with them, so the seqs that it had reserved are skipped.
 * @param isKnownLost whether a loss was reported already, which explains what the files lack
 * @returns also why the files are older than they should be, `null` where they are not
 */
export function whereToContinue(
  found: Found,
  bootId: string,
  isKnownLost: boolean,
): { start: CursorStart; line: number; restored: string | null } {
  const restored = isKnownLost ? null : whyRestored(found);
  if (restored !== null) return { ...beginAnew(found), restored };
  const { identity, tables, line } = found;
  const reserved = mayBeOlder(found, bootId) ? farBeyond(identity.reserved) : identity.reserved;
  return { start: { reserved, reset: resetOf(tables) }, line, restored };
}

/** Returns the seq up to which cursors are from before a restored backup. */
export function resetOf(tables: Tables): number {
  return Number(tables.meta('reset') ?? 0);
}

/** Begins a new sequence of events after a restored backup: every reader gets a gap, whatever its cursor is. */
function beginAnew({ identity, tables, mark, line }: Found): { start: CursorStart; line: number } {
  tables.transaction(() => tables.forgetEvents());
  const seq = farBeyond(Math.max(identity.reserved, newestSeq(tables), mark?.found?.head ?? 0));
  return {
    start: { reserved: seq, reset: seq },
    line: Math.max(line, mark?.found?.line ?? 0, identity.stoppedAt ?? 0),
  };
}

/** The years in which a wall clock may be right, in Unix milliseconds. */
const [EARLIEST, LATEST] = [Date.UTC(2020), Date.UTC(2100)];

/**
 * Returns a seq of 15 digits beyond all that this node can have used: a hundred for each millisecond of the wall clock, a rate that no
 * node reaches. Where that clock is not set, returns the seq after the next reservation.
 */
function farBeyond(seq: number): number {
  const now = Date.now();
  return Math.max(seq + RESERVE, now > EARLIEST && now < LATEST ? now * 100 : 0);
}
