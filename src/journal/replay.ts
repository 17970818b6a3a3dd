import { kindOf, NUMBERED } from './database.ts';
import type { IdentityFacts } from './identity.ts';
import type { Line, Log } from './log.ts';
import type { Notices } from './notices.ts';
import type { Statement } from './statement.ts';
import type { Tables } from './tables.ts';

/** What one image of the daemon passes to the next, so that nothing depends on the state of the files. */
export interface HandedJournal {
  /** The newest seq. */
  head: number;
  /** The number of the last log line that the tables have. */
  applied: number;
  /** The lines that the tables do not have. */
  lines: (Line & { number: number })[];
  /** Write all that exists to empty tables. */
  living: Statement[];
  identity?: IdentityFacts | undefined;
}

interface ReplayParts {
  tables: Tables;
  log: Log;
  notices: Notices;
}

/**
 * Brings the lines that an earlier daemon left in the log to the tables, and empties the log. Lines are numbered, and the tables store
 * the number of the last one they have. So each line is applied once, also where a daemon died between COMMIT and truncation. A line that
 * SQLite refuses is skipped: the earlier daemon died of it.
 * @returns the number of the last line, and whether the lines follow what the tables had
 * @throws {Error} where the disk does not allow it
 */
export function replay({ tables, log, notices }: ReplayParts): { line: number; isContinued: boolean } {
  if (tables.version === 0) tables.migrate();
  const { lines, damage } = log.read();
  if (damage !== null) {
    notices.report({ what: 'damaged', reason: damage.message, setAside: log.setAside() });
    // Some events are lost, so the ones before them must be part of the gap.
    tables.transaction(() => tables.forgetEvents());
  }
  // An older version wrote lines without numbers, for its own tables.
  const isNumbered = tables.version >= NUMBERED;
  let line = isNumbered ? Number(tables.meta('applied') ?? 0) : 0;
  let isContinued = true;
  for (const { number, statements } of lines) {
    if (number !== null && number <= line) continue;
    if (number !== null && number > line + 1) isContinued = false;
    try {
      tables.transaction(() => {
        tables.runAll(statements);
        if (number !== null && isNumbered) tables.setMeta('applied', number);
      });
    } catch (error) {
      if (kindOf(error) === 'disk') throw error;
    }
    if (number !== null) line = number;
  }
  tables.migrate();
  log.clear();
  return { line, isContinued };
}

/**
 * Continues after an earlier image of this process. Where the tables are not the ones that it wrote, they are set aside, and all that
 * exists is written to new ones.
 * @param line the number of the last line that the tables have
 * @returns that number afterwards; `null` where the disk still does not allow a write, as if the earlier image had died
 */
export function takeOver(
  { applied, lines, living }: HandedJournal,
  line: number,
  isNew: boolean,
  { tables, notices }: Omit<ReplayParts, 'log'>,
): number | null {
  try {
    if (line < applied) {
      const setAside = isNew ? {} : { setAside: tables.setAside() };
      if (!notices.isPending)
        notices.report({
          what: 'damaged',
          reason: 'The journal was removed, or an older one was put in its place.',
          ...setAside,
        });
      tables.transaction(() => tables.runAll(living));
    }
    const reached = Math.max(line, applied);
    const missing = lines.filter(({ number }) => number > reached);
    tables.transaction(() => {
      for (const { statements } of missing) tables.runAll(statements);
    });
    return missing.at(-1)?.number ?? reached;
  } catch (error) {
    if (kindOf(error) === 'disk') return null;
    throw error;
  }
}
