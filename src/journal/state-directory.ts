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

/** The files of a state directory that the daemon must be able to read and to write. */
const OWN = ['lock', 'node.json', 'journal.sqlite', 'journal.sqlite-wal', 'journal.log', 'token', 'output'];

/** Returns the directory of captured output. */
export const outputDirectory = (stateDir: string): string => join(stateDir, 'output');

/** Returns the path of the first token. */
export const tokenFile = (stateDir: string): string => join(stateDir, 'token');

/** Matches and returns the directory in which a rehearsal of an upgrade keeps its state. */
const SCRATCH = /^rehearsal-\d+$/;
export const scratchDirectory = (stateDir: string): string => join(stateDir, `rehearsal-${process.pid}`);

/**
 * Creates a state directory, or checks that the existing one can be used, and locks it.
 * @param made receives how to remove new files, including those that are created later
 * @param held the lock of an earlier image of this process; `elsewhere` where the daemon that this process rehearses to replace holds it
 * @returns the lock; `null` where it is elsewhere
 * @throws {Error} in one sentence with the remedy
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
    // After an upgrade the identity comes from the previous image, so the file need not be readable.
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
 * Checks that a journal can be written to a directory.
 * @throws {Error} in one sentence with the remedy
 */
export function requireRoom(directory: string): void {
  try {
    checkRoom(directory);
  } catch (error) {
    throw explained(directory, error);
  }
}

/**
 * Opens the journal of a locked state directory.
 * @throws {Error} in one sentence with the remedy
 */
export function openJournal(options: JournalOptions): Journal {
  try {
    return new Journal(options);
  } catch (error) {
    throw explained(options.directory, error);
  }
}

/** Returns the lock of an earlier image if the path still names the locked file. Closes it otherwise. */
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
    // A failed start of another daemon may have removed the file in the meantime.
    if (isFile(lock, file)) {
      made.defer(() => removeNew(directory, before));
      return lock;
    }
    lock.close();
  }
}

/** Removes the files that are new. An existing journal keeps all its files, SQLite's included. */
function removeNew(directory: string, before: ReadonlySet<string>): void {
  const isNew = !before.has('journal.sqlite') && !before.has('journal.log');
  for (const name of readdirSync(directory))
    if (!before.has(name) && (isNew || !name.startsWith('journal.'))) remove(directory, name);
}

function remove(directory: string, name: string): void {
  rmSync(join(directory, name), { recursive: true, force: true });
}

/** Adds the remedy to an error. A container's user often has no access to a volume. */
function explained(directory: string, error: unknown): unknown {
  const other = 'or give another --state-dir';
  if (isErrno(error, 'EACCES', 'EPERM', 'EROFS'))
    return new Error(
      `uid ${process.getuid!()} may not write to the state directory ${directory}: give it to that user, ${other} (${sentenceOf(error)})`,
    );
  if (isErrno(error, 'ENOTDIR', 'EEXIST'))
    return new Error(`the state directory ${directory} is not a directory: remove what is there, ${other}`);
  if (kindOf(error) === 'disk')
    return new Error(`the journal in ${directory} cannot be used: ${(error as Error).message}: fix that, ${other}`);
  if (isErrno(error, 'ENOSPC', 'EDQUOT'))
    return new Error(`the disk of the state directory ${directory} is full: free space on it, ${other}`);
  if (isErrno(error, 'ELOOP', 'ENAMETOOLONG', 'ENOENT', 'EIO', 'EISDIR', 'EMFILE', 'ENFILE'))
    return new Error(`the state directory ${directory} cannot be used: ${sentenceOf(error)}: fix that, ${other}`);
  return error;
}
