import type { CursorStart } from './cursor.ts';
import { Identity } from './identity.ts';
import { JournalClock, type StoredClock } from './journal-clock.ts';
import { Log } from './log.ts';
import { Mark } from './mark.ts';
import { Notices } from './notices.ts';
import { type HandedJournal, replay, takeOver } from './replay.ts';
import { resetOf, whereToContinue } from './restored.ts';
import { Tables } from './tables.ts';

export interface JournalOptions {
  /** The state directory: it exists, belongs to this daemon alone, and is locked. */
  directory: string;
  bootId: string;
  /** How many events are stored; readers get a gap for older ones. */
  keepEvents: number;
  /** The directory of the marks of progress, outside of the state directory; `null` for none. */
  marks: string | null;
  /** From an earlier image of this process. */
  handed?: HandedJournal | undefined;
}

/** The open files of a journal, and where it continues. */
export interface Started {
  identity: Identity;
  tables: Tables;
  log: Log;
  mark: Mark | null;
  clock: JournalClock;
  notices: Notices;
  start: CursorStart;
  /** The number of the last log line, which the tables have. */
  line: number;
}

/**
 * Opens the files of a journal and brings the tables up to date.
 * @throws {Error} if a file is of a later version, or cannot be read or written
 */
export function start({ directory, bootId, marks, handed }: JournalOptions): Started {
  const notices = new Notices();
  const identity = new Identity(directory, handed?.identity ?? null);
  const tables = new Tables(directory, notices);
  const log = new Log(directory);
  const isNew = tables.version === 0;
  const { line, isContinued } = replay({ tables, log, notices });
  const stored = storedClock(tables);
  const clock = new JournalClock(bootId, stored);
  const mark = marks === null ? null : Mark.open(marks, directory);
  const files = { identity, tables, log, mark, clock, notices };
  const reset = resetOf(tables);
  const taken = handed && takeOver(handed, line, isNew, { tables, notices });
  if (taken != null) return { ...files, start: { reserved: handed!.head, reset }, line: taken };
  const found = { identity, tables, mark, line, isNew, isContinued, clock: stored };
  const { restored, ...next } = whereToContinue(found, bootId, notices.isPending);
  if (restored !== null) notices.report({ what: 'restored', reason: restored });
  return { ...files, ...next };
}

function storedClock(tables: Tables): StoredClock | null {
  const boot = tables.meta('boot');
  if (boot === undefined) return null;
  return { boot: String(boot), base: Number(tables.meta('base')), last: Number(tables.meta('last')) };
}
