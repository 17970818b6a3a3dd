import { accessSync, constants, existsSync, fstatSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sentenceOf } from '../errors/sentence.ts';
import { type Made, makeDirectory } from '../files/made.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { tryLock } from '../kernel/lock.ts';
import { checkRoom, checkVersion, kindOf } from './database.ts';
import { checkIdentity } from './identity.ts';
import { Journal } from './journal.ts';
import type { JournalOptions } from './start.ts';

/** What a daemon keeps in its state directory, and must be able to read and to write. */
const OWN = ['lock', 'node.json', 'journal.sqlite', 'journal.sqlite-wal', 'journal.log', 'token', 'output'];

/** Where captured output lies. */
export const outputDirectory = (stateDir: string): string => join(stateDir, 'output');

/** Where the first token lies. */
export const tokenFile = (stateDir: string): string => join(stateDir, 'token');

/** A directory within the state directory, for a rehearsal. */
const SCRATCH = /^rehearsal-\d+$/;
export const scratchDirectory = (stateDir: string): string => join(stateDir, `rehearsal-${process.pid}`);

/**
 * Makes a state directory, or finds that one can be used, and locks it.
 * @param made gets what is new in it: also what is made there later
 * @param held the lock of an earlier image of this process; `elsewhere` where the daemon has it that this process rehearses to replace
 * @returns the lock; `null` where it is elsewhere
 * @throws {Error} in one sentence with its cure
 */
export function takeStateDirectory(
  directory: string,
  made: Made,
  held: Descriptor | 'elsewhere' | null,
): Descriptor | null {
  try {
    makeDirectory(directory, 0o700, made);
    accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
    for (const path of OWN.map((name) => join(directory, name)))
      if (existsSync(path)) accessSync(path, constants.R_OK | constants.W_OK);
    // A running daemon hands its identity over, whatever has become of the file.
    if (held === null) checkIdentity(directory);
    checkVersion(directory);
    const before = new Set(readdirSync(directory));
    const lock = held === 'elsewhere' ? null : (stillLocked(directory, held) ?? lockIn(directory, before, made));
    if (held === null) for (const name of before) if (SCRATCH.test(name)) remove(directory, name);
    makeDirectory(outputDirectory(directory), 0o700, made);
    return lock;
  } catch (error) {
    throw explained(directory, error);
  }
}

/**
 * Finds out whether a journal could be written there.
 * @throws {Error} in one sentence with its cure
 */
export function requireRoom(directory: string): void {
  try {
    checkRoom(directory);
  } catch (error) {
    throw explained(directory, error);
  }
}

/**
 * Opens the journal of a state directory that was taken.
 * @throws {Error} in one sentence with its cure
 */
export function openJournal(options: JournalOptions): Journal {
  try {
    return new Journal(options);
  } catch (error) {
    throw explained(options.directory, error);
  }
}

/** The lock of an earlier image is of the file that was there then. */
function stillLocked(directory: string, lock: Descriptor | null): Descriptor | null {
  if (lock === null || isFile(lock, lockFile(directory))) return lock;
  lock.close();
  return null;
}

const lockFile = (directory: string): string => join(directory, 'lock');

function isFile({ fd }: Descriptor, path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  return there?.ino === ino && there.dev === dev;
}

function lockIn(directory: string, before: ReadonlySet<string>, made: Made): Descriptor {
  const file = lockFile(directory);
  for (;;) {
    writeFileSync(file, '', { mode: 0o600, flag: 'a' });
    const lock = tryLock(file);
    if (lock === null)
      throw new Error(`another waitd uses the state directory ${directory}: stop it, or give another --state-dir`);
    // A start that failed may have removed it in the meantime.
    if (isFile(lock, file)) {
      made.defer(() => removeNew(directory, before));
      return lock;
    }
    lock.close();
  }
}

/** Removes what was not there before. A journal that was is left as it is, with the files that SQLite has beside it. */
function removeNew(directory: string, before: ReadonlySet<string>): void {
  const isNew = !before.has('journal.sqlite') && !before.has('journal.log');
  for (const name of readdirSync(directory))
    if (!before.has(name) && (isNew || !name.startsWith('journal.'))) remove(directory, name);
}

function remove(directory: string, name: string): void {
  rmSync(join(directory, name), { recursive: true, force: true });
}

/** As a container's user one often has no right to a volume. */
function explained(directory: string, error: unknown): unknown {
  const other = 'or give another --state-dir';
  if (isErrno(error, 'EACCES', 'EPERM', 'EROFS'))
    return new Error(
      `uid ${process.getuid!()} may not write to the state directory ${directory}: give it to that user, ${other} (${sentenceOf(error)})`,
    );
  if (isErrno(error, 'ENOTDIR', 'EEXIST'))
    return new Error(`the state directory ${directory} is no directory: remove what is there, ${other}`);
  if (kindOf(error) === 'disk')
    return new Error(`the journal in ${directory} cannot be used: ${(error as Error).message}: mend that, ${other}`);
  if (isErrno(error, 'ENOSPC', 'EDQUOT'))
    return new Error(`there is no room for the state directory ${directory}: make some, ${other}`);
  if (isErrno(error, 'ELOOP', 'ENAMETOOLONG', 'ENOENT', 'EIO', 'EISDIR', 'EMFILE', 'ENFILE'))
    return new Error(`the state directory ${directory} cannot be used: ${sentenceOf(error)}: mend that, ${other}`);
  return error;
}
